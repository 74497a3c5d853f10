/* Preloaded into a program: system calls on files of a folder fail as the environment says.
 *
 * FAIL_UNDER  the folder, as the kernel names it
 * FAIL_AT     the number of the call that fails, from 1; 0: none does
 * FAIL_HOW    EIO, ENOSPC, EDQUOT: that error; EINTR: that error once; short: half of what is read or written, once
 * FAIL_EVER   1: all later calls of the kind fail, too, as on a disk that stays full
 * FAIL_KIND   read, write, sync, rename, open, create (open what is not there yet)
 * FAIL_COUNT  a file to which the number of the calls is written at the end
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long calls;

static int is_kind(const char* kind) {
    const char* wanted = getenv("FAIL_KIND");
    return wanted && strcmp(wanted, kind) == 0;
}

static int is_below(const char* path) {
    const char* folder = getenv("FAIL_UNDER");
    return folder && path[0] == '/' && strncmp(path, folder, strlen(folder)) == 0;
}

static int is_ours(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    const ssize_t n = readlink(link, path, sizeof(path) - 1);
    if (n <= 0) return 0;
    path[n] = 0;
    return is_below(path);
}

/* 0: it goes on; -1: it fails with errno; 1: it is cut short. */
static int chosen(void) {
    const char *at = getenv("FAIL_AT"), *how = getenv("FAIL_HOW"), *ever = getenv("FAIL_EVER");
    const long number = atomic_fetch_add(&calls, 1) + 1, wanted = at ? atol(at) : 0;
    if (!wanted || !how || (number != wanted && !(ever && number > wanted))) return 0;
    if (strcmp(how, "short") == 0) return 1;
    errno = strcmp(how, "EIO") == 0      ? EIO
            : strcmp(how, "ENOSPC") == 0 ? ENOSPC
            : strcmp(how, "EDQUOT") == 0 ? EDQUOT
                                         : EINTR;
    return -1;
}

__attribute__((destructor)) static void tell(void) {
    const char* path = getenv("FAIL_COUNT");
    if (!path) return;
    FILE* file = fopen(path, "w");
    if (!file) return;
    fprintf(file, "%ld\n", (long)calls);
    fclose(file);
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

#define TRANSFER(kind, result, name, arguments, values, ...) \
    result name arguments { \
        REAL(name); \
        if (is_kind(kind) && is_ours(fd)) { \
            const int how = chosen(); \
            if (how < 0) return -1; \
            if (how > 0 && size > 1) size /= 2; \
        } \
        return real values; \
    }
TRANSFER("read", ssize_t, read, (int fd, void* data, size_t size), (fd, data, size))
TRANSFER("read", ssize_t, pread, (int fd, void* data, size_t size, off_t at), (fd, data, size, at))
TRANSFER("read", ssize_t, pread64, (int fd, void* data, size_t size, off64_t at), (fd, data, size, at))
TRANSFER("write", ssize_t, write, (int fd, const void* data, size_t size), (fd, data, size))
TRANSFER("write", ssize_t, pwrite, (int fd, const void* data, size_t size, off_t at), (fd, data, size, at))
TRANSFER("write", ssize_t, pwrite64, (int fd, const void* data, size_t size, off64_t at), (fd, data, size, at))

ssize_t writev(int fd, const struct iovec* pieces, int count) {
    REAL(writev);
    if (is_kind("write") && is_ours(fd)) {
        const int how = chosen();
        if (how < 0) return -1;
        if (how > 0 && count > 1) count /= 2;
    }
    return real(fd, pieces, count);
}

#define OF_FILE(kind, name, arguments, values) \
    int name arguments { \
        REAL(name); \
        if (is_kind(kind) && is_ours(fd) && chosen() < 0) return -1; \
        return real values; \
    }
OF_FILE("sync", fsync, (int fd), (fd))
OF_FILE("sync", fdatasync, (int fd), (fd))
OF_FILE("sync", ftruncate, (int fd, off_t size), (fd, size))
OF_FILE("sync", ftruncate64, (int fd, off64_t size), (fd, size))

int rename(const char* from, const char* to) {
    REAL(rename);
    if (is_kind("rename") && is_below(to) && chosen() < 0) return -1;
    return real(from, to);
}
int renameat(int of, const char* from, int at, const char* to) {
    REAL(renameat);
    if (is_kind("rename") && is_below(to) && chosen() < 0) return -1;
    return real(of, from, at, to);
}

#define OPENING(name, arguments, values) \
    int name arguments { \
        REAL(name); \
        mode_t mode = 0; \
        if (flags & (O_CREAT | O_TMPFILE)) { \
            va_list more; \
            va_start(more, flags); \
            mode = va_arg(more, mode_t); \
            va_end(more); \
        } \
        const int wanted = is_kind("create") ? (flags & O_CREAT) != 0 : is_kind("open"); \
        if (wanted && is_below(path) && chosen() < 0) return -1; \
        return real values; \
    }
OPENING(open, (const char* path, int flags, ...), (path, flags, mode))
OPENING(open64, (const char* path, int flags, ...), (path, flags, mode))
OPENING(openat, (int folder, const char* path, int flags, ...), (folder, path, flags, mode))
OPENING(openat64, (int folder, const char* path, int flags, ...), (folder, path, flags, mode))
