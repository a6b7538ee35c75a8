/* Faults at the border to the operating system, for tests: preloaded into a program, it hurts chosen system calls.

   A fault is described by one text of keys and values, in the environment variable HPCFRAME_TEST_FAULT, or given to
   hpcframe_fault() by a program that has this library preloaded:

     call=pwrite,path=checkpoints,nth=3,rank=1,action=kill

     call    open, read, pread, write, pwrite, fsync, fdatasync, ftruncate, fallocate, close, rename, mkdir, unlink,
             rmdir; `write` is pwrite too and `read` is pread too; all of them without this key
     path    only calls on files whose path contains this text
     nth     the first of these calls in a process that is hurt, counted from 1 (1)
     once    that one alone, not those after it
     rank    only in this MPI process
     action  kill       SIGKILL to this process
             killall    and to all others that the same launcher started, this one last: a lost machine
             stop       SIGSTOP to this process; the call is made once it goes on
             sleep:S    S seconds pass before the call
             errno:E    the call is not made and fails with E, such as ENOSPC (close does close)
             torn       half of what is to be written is written, then kill
             short      half of it is written and its length returned, which POSIX allows
             flip       one bit of it is another, the call succeeds
             The last three leave calls alone that do not write, except that torn kills there, too.
     bit     which bit `flip` changes, modulo their number (0)
     log     a file: each of these calls, hurt or not and on whatever rank, is noted before it is made, in a line of
             call, rank, number, process id and path, with tabs between them

   Without an action calls are only counted and noted. Nothing happens to calls on other paths.  */
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
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum action { NOTHING, KILL, KILL_ALL, STOP, SLEEP, FAIL, TORN, SHORT, FLIP };

struct fault {
    char call[16], path[256];
    enum action action;
    long nth, rank, bit;
    int once, error, log;
    double seconds;
};

static struct fault *_Atomic current; /* a former one is never freed: another thread may be looking at it */
static atomic_long seen, hurt;

/* -- descriptions ---------------------------------------------------------------------------------------------- */

static const struct { const char *name; int number; } ERRORS[] = {
    {"ENOSPC", ENOSPC}, {"EIO", EIO}, {"EDQUOT", EDQUOT}, {"EACCES", EACCES}, {"EPERM", EPERM}, {"EROFS", EROFS},
    {"ENOENT", ENOENT}, {"EMFILE", EMFILE}, {"EFBIG", EFBIG}, {"ESTALE", ESTALE}, {"EINTR", EINTR},
};

static const struct { const char *name; enum action action; } ACTIONS[] = {
    {"kill", KILL}, {"killall", KILL_ALL}, {"stop", STOP}, {"torn", TORN}, {"short", SHORT}, {"flip", FLIP},
};

static int read_action(struct fault *fault, const char *text) {
    for (size_t i = 0; i < sizeof ACTIONS / sizeof *ACTIONS; i++)
        if (!strcmp(text, ACTIONS[i].name)) return fault->action = ACTIONS[i].action, 0;
    if (!strncmp(text, "sleep:", 6)) return fault->action = SLEEP, fault->seconds = atof(text + 6), 0;
    if (strncmp(text, "errno:", 6)) return -1;
    for (size_t i = 0; i < sizeof ERRORS / sizeof *ERRORS; i++)
        if (!strcmp(text + 6, ERRORS[i].name)) return fault->action = FAIL, fault->error = ERRORS[i].number, 0;
    return -1;
}

static int read_key(struct fault *fault, const char *key, const char *value) {
    if (!strcmp(key, "once")) return fault->once = 1, 0;
    if (!strcmp(key, "call")) return snprintf(fault->call, sizeof fault->call, "%s", value), 0;
    if (!strcmp(key, "path")) return snprintf(fault->path, sizeof fault->path, "%s", value), 0;
    if (!strcmp(key, "nth")) return fault->nth = atol(value), 0;
    if (!strcmp(key, "rank")) return fault->rank = atol(value), 0;
    if (!strcmp(key, "bit")) return fault->bit = atol(value), 0;
    if (!strcmp(key, "action")) return read_action(fault, value);
    if (strcmp(key, "log")) return -1;
    fault->log = syscall(SYS_openat, AT_FDCWD, value, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
    return fault->log < 0 ? -1 : 0;
}

/* Arm by a description, or disarm by "". Returns -1, and leaves all as it was, where it cannot be understood. */
int hpcframe_fault(const char *description) {
    char text[1024], *rest = text, *part;
    struct fault *fault = calloc(1, sizeof *fault), *former;
    if (!fault || snprintf(text, sizeof text, "%s", description) >= (int)sizeof text) return -1;
    fault->nth = 1, fault->rank = -1, fault->log = -1;
    while (*description && (part = strsep(&rest, ","))) {
        char *value = strchr(part, '=');
        if (value) *value++ = 0;
        if (read_key(fault, part, value ? value : "")) return -1;
    }
    if (*description) seen = hurt = 0;
    former = atomic_exchange(&current, *description ? fault : NULL);
    if (former && former->log >= 0) syscall(SYS_close, former->log);
    return 0;
}

/* How many calls the latest fault has hurt, and how many there were that its call and path describe. */
long hpcframe_hurt(void) { return hurt; }
long hpcframe_seen(void) { return seen; }

static const char *launched_rank(void) {
    static const char *const names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"};
    for (int i = 0; i < 4; i++)
        if (getenv(names[i])) return getenv(names[i]);
    return NULL;
}

static pid_t launcher; /* of this process, if it began as a rank: MPI later sets those variables in others, too */

__attribute__((constructor)) static void start(void) {
    if (launched_rank()) launcher = getppid();
    const char *description = getenv("HPCFRAME_TEST_FAULT");
    if (description && hpcframe_fault(description)) {
        fprintf(stderr, "HPCFRAME_TEST_FAULT=%s cannot be understood\n", description);
        _exit(99);
    }
}

/* -- what happens at a call ------------------------------------------------------------------------------------ */

static long own_rank(void) { return launched_rank() ? atol(launched_rank()) : 0; }

static void kill_itself(void) { syscall(SYS_kill, getpid(), SIGKILL); }

/* The other children of the launcher. A process that was not started as a rank, or whose launcher is gone, has none. */
static void kill_all(void) {
    char command[64], line[32];
    FILE *children = NULL;
    if (launcher > 1 && launcher == getppid()) {
        snprintf(command, sizeof command, "cat /proc/%d/task/*/children", launcher);
        unsetenv("LD_PRELOAD");
        children = popen(command, "r");
    }
    while (children && fscanf(children, "%31s", line) == 1)
        if (atoi(line) != getpid()) syscall(SYS_kill, atoi(line), SIGKILL);
    kill_itself();
}

static void pause_for(double seconds) {
    struct timespec left = {(time_t)seconds, (long)((seconds - (time_t)seconds) * 1e9)};
    while (nanosleep(&left, &left) && errno == EINTR) {}
}

static void note(struct fault *fault, const char *call, long number, const char *path) {
    char line[2 * PATH_MAX + 128];
    int length = snprintf(line, sizeof line, "%s\t%ld\t%ld\t%d\t%s\n", call, own_rank(), number, getpid(), path);
    syscall(SYS_write, fault->log, line, length); /* one write to a file opened for appending stays in one piece */
}

static int ends_with(const char *text, const char *end) {
    size_t length = strlen(text), wanted = strlen(end);
    return wanted <= length && !strcmp(text + length - wanted, end);
}

/* A call is about to be made. Returns what the caller has to do: nothing, or to fail, or to write otherwise. */
static enum action meet(struct fault *fault, const char *call, const char *path) {
    if (!ends_with(call, fault->call) || !strstr(path, fault->path)) return NOTHING;
    long number = atomic_fetch_add(&seen, 1) + 1;
    if (fault->log >= 0) note(fault, call, number, path);
    if (!fault->action || (fault->rank >= 0 && fault->rank != own_rank())) return NOTHING;
    if (number < fault->nth || (fault->once && number > fault->nth)) return NOTHING;
    atomic_fetch_add(&hurt, 1);
    if (fault->action == KILL) kill_itself();
    if (fault->action == KILL_ALL) kill_all();
    if (fault->action == TORN && !ends_with(call, "write")) kill_itself();
    if (fault->action == STOP) syscall(SYS_kill, getpid(), SIGSTOP);
    if (fault->action == SLEEP) pause_for(fault->seconds);
    if (fault->action == FAIL) errno = fault->error;
    return fault->action;
}

static enum action meet_file(struct fault *fault, const char *call, int file) {
    char link[64], path[PATH_MAX];
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    errno = before;
    path[length > 0 ? length : 0] = 0;
    return meet(fault, call, path);
}

static enum action meet_path(struct fault *fault, const char *call, int folder, const char *name) {
    char link[64], path[2 * PATH_MAX];
    if (folder == AT_FDCWD || name[0] == '/') return meet(fault, call, name);
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    snprintf(path + (length > 0 ? length : 0), PATH_MAX, "/%s", name);
    return meet(fault, call, path);
}

/* The first `wanted` bytes of the parts, or all of them, with one bit changed if `bit` is at least 0. */
static ssize_t write_copy(int file, const struct iovec *parts, int count, size_t wanted, long bit, const off64_t *at) {
    size_t done = 0;
    char *copy = malloc(wanted + 1);
    for (int i = 0; i < count && done < wanted; i++) {
        size_t length = parts[i].iov_len < wanted - done ? parts[i].iov_len : wanted - done;
        memcpy(copy + done, parts[i].iov_base, length);
        done += length;
    }
    if (bit >= 0 && done) copy[bit / 8 % done] ^= 1 << bit % 8;
    ssize_t written = at ? syscall(SYS_pwrite64, file, copy, done, *at) : syscall(SYS_write, file, copy, done);
    free(copy);
    return written;
}

static ssize_t write_hurt(struct fault *fault, int file, const struct iovec *parts, int count, const off64_t *at) {
    size_t size = 0;
    for (int i = 0; i < count; i++) size += parts[i].iov_len;
    if (fault->action == FLIP) return write_copy(file, parts, count, size, fault->bit, at);
    if (fault->action == SHORT) return write_copy(file, parts, count, size > 1 ? size / 2 : size, -1, at);
    write_copy(file, parts, count, size / 2, -1, at); /* TORN */
    kill_itself();
    return -1;
}

/* -- the calls ------------------------------------------------------------------------------------------------- */

#define NEXT(name) \
    static __typeof__(name) *_Atomic next; \
    if (!next) next = (__typeof__(name) *)dlsym(RTLD_NEXT, #name); \
    struct fault *fault = current

#define MODE(flags, mode) \
    mode_t mode = 0; \
    if (flags & (O_CREAT | __O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, flags); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
    }

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        NEXT(name); \
        MODE(flags, mode) \
        return fault && meet_path(fault, "open", AT_FDCWD, path) == FAIL ? -1 : next(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define OPEN_AT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        NEXT(name); \
        MODE(flags, mode) \
        return fault && meet_path(fault, "open", folder, path) == FAIL ? -1 : next(folder, path, flags, mode); \
    }
OPEN_AT(openat)
OPEN_AT(openat64)

/* The lists of parameters and arguments come in brackets; `at` says where is written, and the rest what. */
#define WRITE(name, call, parameters, arguments, at, ...) \
    ssize_t name parameters { \
        NEXT(name); \
        enum action action = fault ? meet_file(fault, call, file) : NOTHING; \
        if (action == FAIL) return -1; \
        return action >= TORN ? write_hurt(fault, file, __VA_ARGS__, at) : next arguments; \
    }
#define DATA &(struct iovec){(void *)data, size}, 1
WRITE(write, "write", (int file, const void *data, size_t size), (file, data, size), NULL, DATA)
WRITE(pwrite, "pwrite", (int file, const void *data, size_t size, off_t at), (file, data, size, at), &at, DATA)
WRITE(pwrite64, "pwrite", (int file, const void *data, size_t size, off64_t at), (file, data, size, at), &at, DATA)

#define PARTS (int file, const struct iovec *parts, int count)
#define PARTS_AT (int file, const struct iovec *parts, int count, off64_t at)
#define PARTS_AT_BY (int file, const struct iovec *parts, int count, off64_t at, int flags)
WRITE(writev, "write", PARTS, (file, parts, count), NULL, parts, count)
WRITE(pwritev, "pwrite", PARTS_AT, (file, parts, count, at), &at, parts, count)
WRITE(pwritev64, "pwrite", PARTS_AT, (file, parts, count, at), &at, parts, count)
WRITE(pwritev2, "pwrite", PARTS_AT_BY, (file, parts, count, at, flags), at < 0 ? NULL : &at, parts, count)
WRITE(pwritev64v2, "pwrite", PARTS_AT_BY, (file, parts, count, at, flags), at < 0 ? NULL : &at, parts, count)

#define ON_FILE(type, name, call, parameters, arguments) \
    type name parameters { \
        NEXT(name); \
        return fault && meet_file(fault, call, file) == FAIL ? -1 : next arguments; \
    }
ON_FILE(ssize_t, read, "read", (int file, void *data, size_t size), (file, data, size))
ON_FILE(ssize_t, readv, "read", PARTS, (file, parts, count))
ON_FILE(ssize_t, pread, "pread", (int file, void *data, size_t size, off_t at), (file, data, size, at))
ON_FILE(ssize_t, pread64, "pread", (int file, void *data, size_t size, off64_t at), (file, data, size, at))
ON_FILE(ssize_t, preadv, "pread", PARTS_AT, (file, parts, count, at))
ON_FILE(ssize_t, preadv64, "pread", PARTS_AT, (file, parts, count, at))
ON_FILE(ssize_t, preadv2, "pread", PARTS_AT_BY, (file, parts, count, at, flags))
ON_FILE(ssize_t, preadv64v2, "pread", PARTS_AT_BY, (file, parts, count, at, flags))
ON_FILE(int, fsync, "fsync", (int file), (file))
ON_FILE(int, fdatasync, "fdatasync", (int file), (file))
ON_FILE(int, ftruncate, "ftruncate", (int file, off_t size), (file, size))
ON_FILE(int, ftruncate64, "ftruncate", (int file, off64_t size), (file, size))

/* These return their error. */
#define ALLOCATE(name, offset) \
    int name(int file, offset at, offset size) { \
        NEXT(name); \
        return fault && meet_file(fault, "fallocate", file) == FAIL ? fault->error : next(file, at, size); \
    }
ALLOCATE(posix_fallocate, off_t)
ALLOCATE(posix_fallocate64, off64_t)

int close(int file) {
    NEXT(close);
    enum action action = fault ? meet_file(fault, "close", file) : NOTHING;
    int code = next(file);
    return action == FAIL ? errno = fault->error, -1 : code;
}

#define ON_PATH(name, call, folder, parameters, arguments) \
    int name parameters { \
        NEXT(name); \
        return fault && meet_path(fault, call, folder, path) == FAIL ? -1 : next arguments; \
    }
ON_PATH(mkdir, "mkdir", AT_FDCWD, (const char *path, mode_t mode), (path, mode))
ON_PATH(mkdirat, "mkdir", folder, (int folder, const char *path, mode_t mode), (folder, path, mode))
ON_PATH(unlink, "unlink", AT_FDCWD, (const char *path), (path))
ON_PATH(rmdir, "rmdir", AT_FDCWD, (const char *path), (path))
ON_PATH(unlinkat, flags & AT_REMOVEDIR ? "rmdir" : "unlink", folder, (int folder, const char *path, int flags),
        (folder, path, flags))

static enum action meet_rename(struct fault *fault, const char *from, const char *to) {
    char both[2 * PATH_MAX + 8];
    snprintf(both, sizeof both, "%s -> %s", from, to);
    return meet(fault, "rename", both);
}

int rename(const char *from, const char *to) {
    NEXT(rename);
    return fault && meet_rename(fault, from, to) == FAIL ? -1 : next(from, to);
}

int renameat(int old, const char *from, int new, const char *to) {
    NEXT(renameat);
    return fault && meet_rename(fault, from, to) == FAIL ? -1 : next(old, from, new, to);
}
