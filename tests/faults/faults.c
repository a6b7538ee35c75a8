/* Faults at the border to the operating system, for tests: preloaded into a program, it hurts a chosen system call.

   HPCFRAME_TEST_FAULT="call=pwrite,path=checkpoints,nth=3,rank=1,action=kill"
     call    open write pwrite pread fsync rename mkdir unlink ftruncate, or any
     path    only calls on files whose path contains this text
     nth     the first call that is hurt, counted from 1; those after it too, unless `once` is given
     rank    of the MPI process; all without it
     action  kill (this process), killall (all processes of the launcher), stop, torn (half is written, then kill),
             short (half is written), flip (one bit of what is written), or the number of an error
   HPCFRAME_TEST_CALLS=FILE: each call that matches is noted there as a line: call, rank, path.  */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char wanted_call[16] = "any", wanted_path[128], action[16];
static long wanted_nth = 1, wanted_rank = -1;
static int once, armed, calls_file = -1;
static atomic_long seen;

static long own_rank(void) {
    const char *names[] = {"OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID"};
    for (int i = 0; i < 4; i++)
        if (getenv(names[i])) return atol(getenv(names[i]));
    return 0;
}

/* Arm by a description, or disarm by "". */
void hpcframe_fault(const char *description) {
    char text[512], *rest = text, *part;
    snprintf(text, sizeof text, "%s", description);
    armed = 0, once = 0, wanted_nth = 1, wanted_rank = -1;
    wanted_path[0] = 0;
    strcpy(wanted_call, "any");
    while ((part = strsep(&rest, ","))) {
        char *value = strchr(part, '=');
        if (value) *value++ = 0;
        if (!strcmp(part, "once")) once = 1;
        if (!value) continue;
        if (!strcmp(part, "call")) snprintf(wanted_call, sizeof wanted_call, "%s", value);
        if (!strcmp(part, "path")) snprintf(wanted_path, sizeof wanted_path, "%s", value);
        if (!strcmp(part, "action")) snprintf(action, sizeof action, "%s", value), armed = 1;
        if (!strcmp(part, "nth")) wanted_nth = atol(value);
        if (!strcmp(part, "rank")) wanted_rank = atol(value);
    }
    atomic_store(&seen, 0);
}

__attribute__((constructor)) static void start(void) {
    const char *fault = getenv("HPCFRAME_TEST_FAULT"), *calls = getenv("HPCFRAME_TEST_CALLS");
    if (fault) hpcframe_fault(fault);
    if (calls) {
        calls_file = syscall(SYS_openat, AT_FDCWD, calls, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
        if (!fault) snprintf(wanted_path, sizeof wanted_path, "%s", getenv("HPCFRAME_TEST_PATH") ?: "");
    }
}

static void die(void) { syscall(SYS_kill, getpid(), SIGKILL); }

/* The processes of the launcher, this one last: what a lost machine looks like. */
static void die_all(void) {
    char name[64], text[4096];
    snprintf(name, sizeof name, "/proc/%d/task/%d/children", getppid(), getppid());
    int file = syscall(SYS_openat, AT_FDCWD, name, O_RDONLY | O_CLOEXEC);
    long length = file < 0 ? 0 : syscall(SYS_read, file, text, sizeof text - 1);
    text[length > 0 ? length : 0] = 0;
    for (char *word = strtok(text, " \n"); word; word = strtok(NULL, " \n"))
        if (atol(word) != getpid()) syscall(SYS_kill, (pid_t)atol(word), SIGKILL);
    die();
}

static const char *path_of(int file, char *buffer) {
    char name[64];
    snprintf(name, sizeof name, "/proc/self/fd/%d", file);
    long length = syscall(SYS_readlinkat, AT_FDCWD, name, buffer, PATH_MAX - 1);
    buffer[length > 0 ? length : 0] = 0;
    return buffer;
}

/* Whether this call is to be hurt. Kills and stops happen here. */
static int hurt(const char *call, const char *path) {
    if ((!armed && calls_file < 0) || !path || !strstr(path, wanted_path)) return 0;
    if (strcmp(wanted_call, "any") && strcmp(wanted_call, call)) return 0;
    if (wanted_rank >= 0 && own_rank() != wanted_rank) return 0;
    if (calls_file >= 0) {
        char line[PATH_MAX + 64];
        int length = snprintf(line, sizeof line, "%s\t%ld\t%s\n", call, own_rank(), path);
        syscall(SYS_write, calls_file, line, length);
    }
    if (!armed) return 0;
    long number = atomic_fetch_add(&seen, 1) + 1;
    if (number < wanted_nth || (once && number > wanted_nth)) return 0;
    if (!strcmp(action, "kill")) die();
    if (!strcmp(action, "killall")) die_all();
    if (!strcmp(action, "stop")) syscall(SYS_kill, getpid(), SIGSTOP);
    return 1;
}

static int error_number(void) { return atoi(action); }

#define NEXT(name) \
    static __typeof__(name) *next; \
    if (!next) next = dlsym(RTLD_NEXT, #name)

#define FAIL_IF_HURT(call, path) \
    if (hurt(call, path) && error_number()) { errno = error_number(); return -1; }

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        NEXT(name); \
        va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
        FAIL_IF_HURT("open", path) \
        return next(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define WRITE(name, call, offset_parameter, offset) \
    ssize_t name(int file, const void *data, size_t size offset_parameter) { \
        NEXT(name); \
        char buffer[PATH_MAX]; \
        if ((armed || calls_file >= 0) && hurt(call, path_of(file, buffer))) { \
            if (error_number()) { errno = error_number(); return -1; } \
            if (!strcmp(action, "torn")) { next(file, data, size / 2 offset); die(); } \
            if (!strcmp(action, "short")) return next(file, data, size > 1 ? size / 2 : size offset); \
            if (!strcmp(action, "flip") && size) { \
                char *copy = malloc(size); \
                memcpy(copy, data, size); \
                copy[size / 3] ^= 4; \
                ssize_t done = next(file, copy, size offset); \
                free(copy); \
                return done; \
            } \
        } \
        return next(file, data, size offset); \
    }
#define COMMA ,
WRITE(write, "write", , )
WRITE(pwrite, "pwrite", COMMA off_t offset, COMMA offset)
WRITE(pwrite64, "pwrite", COMMA off64_t offset, COMMA offset)

#define ON_FILE(type, name, call, parameters, arguments) \
    type name parameters { \
        NEXT(name); \
        char buffer[PATH_MAX]; \
        if (armed || calls_file >= 0) { FAIL_IF_HURT(call, path_of(file, buffer)) } \
        return next arguments; \
    }
ON_FILE(ssize_t, pread, "pread", (int file, void *data, size_t size, off_t offset), (file, data, size, offset))
ON_FILE(ssize_t, pread64, "pread", (int file, void *data, size_t size, off64_t offset), (file, data, size, offset))
ON_FILE(ssize_t, preadv, "pread", (int file, const struct iovec *parts, int count, off_t offset),
        (file, parts, count, offset))
ON_FILE(ssize_t, preadv64, "pread", (int file, const struct iovec *parts, int count, off64_t offset),
        (file, parts, count, offset))
ON_FILE(int, fsync, "fsync", (int file), (file))
ON_FILE(int, ftruncate, "ftruncate", (int file, off_t size), (file, size))
ON_FILE(int, ftruncate64, "ftruncate", (int file, off64_t size), (file, size))

#define ON_PATH(name, call, parameters, arguments) \
    int name parameters { \
        NEXT(name); \
        FAIL_IF_HURT(call, path) \
        return next arguments; \
    }
ON_PATH(rename, "rename", (const char *path, const char *to), (path, to))
ON_PATH(mkdir, "mkdir", (const char *path, mode_t mode), (path, mode))
ON_PATH(unlink, "unlink", (const char *path), (path))
ON_PATH(rmdir, "unlink", (const char *path), (path))

int unlinkat(int folder, const char *path, int flags) {
    NEXT(unlinkat);
    char buffer[PATH_MAX];
    if (armed || calls_file >= 0) { FAIL_IF_HURT("unlink", path_of(folder, buffer)) }
    return next(folder, path, flags);
}
