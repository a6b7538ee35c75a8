# shellcheck shell=bash
# The Elastic Fabric Adapter: used where there is one, and then for certain. Nothing is set where there is none.

if compgen -G "${HPCFRAME_SYS:-/sys}/bus/pci/drivers/efa/0000:*" >/dev/null; then
    # Without it libfabric falls back to TCP when EFA does not work, which is ten times slower and says nothing.
    export FI_PROVIDER=${FI_PROVIDER:-efa}
    case $mpi_name in
    Open*)
        # Open MPI reaches EFA through libfabric's matching only; ob1 would take TCP.
        export OMPI_MCA_pml=${OMPI_MCA_pml:-cm} OMPI_MCA_mtl=${OMPI_MCA_mtl:-ofi}
        ;;
    Intel*)
        # Its own libfabric may be too old for EFA; shared memory within a node, libfabric between nodes.
        export I_MPI_OFI_LIBRARY_INTERNAL=${I_MPI_OFI_LIBRARY_INTERNAL:-0} I_MPI_FABRICS=${I_MPI_FABRICS:-shm:ofi}
        # All cards of a node: hpc7a and hpc8a have two.
        export I_MPI_OFI_PROVIDER=${I_MPI_OFI_PROVIDER:-efa} I_MPI_MULTIRAIL=${I_MPI_MULTIRAIL:-1}
        ;;
    esac
    # Before Linux 5.15 a process that uses EFA must not fork unless libfabric knows; on newer ones it only costs time.
    if [ "$(printf '5.15\n%s\n' "$(uname -r)" | sort -V | head -n 1)" != 5.15 ]; then
        export FI_EFA_FORK_SAFE=${FI_EFA_FORK_SAFE:-1}
    fi
    # FI_EFA_USE_DEVICE_RDMA is left alone: 1 ends the job on instances without RDMA, and others use it anyway.
fi
