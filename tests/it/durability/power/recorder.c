/* Preloaded into the recorded process of the power-loss test: writes down, in the order in which
 * they take effect, all changes to files below $BELLHOP_RECORD_DIR into $BELLHOP_RECORD_LOG.
 *
 * One record: operation (1 byte), length of the name (1), 2 bytes of padding, length of the data
 * (4), offset or size (8), name, data. Operations: c created, w written, t truncated, s file
 * synced, d folder synced, u unlinked.
 *
 * One lock is held over each call and its record, so that the record's order is the true one. What
 * it does not know (rename, mmap, fallocate) shows: the test replays the record and compares. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define FILES 4096
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *folder;
static int record = -1;
/* Names by descriptor; "" is the folder itself. */
static char *names[FILES];

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("BELLHOP_RECORD_LOG");
    folder = getenv("BELLHOP_RECORD_DIR");
    if (path && folder)
        record = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

/* The name below the folder; 0 for any other file. */
static const char *below(const char *path) {
    if (record < 0 || !path) return 0;
    size_t length = strlen(folder);
    if (strncmp(path, folder, length)) return 0;
    if (!path[length]) return "";
    return path[length] == '/' ? path + length + 1 : 0;
}

static void note(char operation, const char *name, uint64_t at, const void *data, uint32_t length) {
    struct { char operation; uint8_t name; uint16_t padding; uint32_t data; uint64_t at; } head = {
        operation, (uint8_t)strlen(name), 0, length, at };
    struct iovec parts[3] = {{&head, sizeof head}, {(void *)name, head.name}, {(void *)data, length}};
    size_t whole = sizeof head + head.name + length;
    /* A record that is cut short would make the whole test lie. */
    if ((size_t)syscall(SYS_writev, record, parts, 3) != whole) abort();
}

static const char *name_of(int file) { return file >= 0 && file < FILES ? names[file] : 0; }

static int opened(int at, const char *path, int flags, mode_t mode) {
    const char *name = below(path);
    if (!name) return syscall(SYS_openat, at, path, flags, mode);
    pthread_mutex_lock(&lock);
    int fresh = syscall(SYS_faccessat, at, path, F_OK) != 0;
    int file = syscall(SYS_openat, at, path, flags, mode);
    int error = errno;
    if (file >= 0) {
        if (file >= FILES) abort();
        names[file] = strdup(name);
        if (*name && fresh) note('c', name, 0, 0, 0);
        else if (*name && flags & O_TRUNC) note('t', name, 0, 0, 0);
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return file;
}

#define OPEN(function)                                                     \
    int function(const char *path, int flags, ...) {                       \
        va_list rest;                                                      \
        va_start(rest, flags);                                             \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, int) : 0; \
        va_end(rest);                                                      \
        return opened(AT_FDCWD, path, flags, mode);                        \
    }
OPEN(open)
OPEN(open64)

int close(int file) {
    if (!name_of(file)) return syscall(SYS_close, file);
    pthread_mutex_lock(&lock);
    free(names[file]);
    names[file] = 0;
    int result = syscall(SYS_close, file);
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

static ssize_t written(int file, const void *data, size_t length, off_t at, int positioned) {
    const char *name = name_of(file);
    if (!name)
        return positioned ? syscall(SYS_pwrite64, file, data, length, at)
                          : syscall(SYS_write, file, data, length);
    pthread_mutex_lock(&lock);
    if (!positioned)
        at = syscall(SYS_lseek, file, 0, fcntl(file, F_GETFL) & O_APPEND ? SEEK_END : SEEK_CUR);
    ssize_t count = positioned ? syscall(SYS_pwrite64, file, data, length, at)
                               : syscall(SYS_write, file, data, length);
    int error = errno;
    if (count > 0) note('w', name, at, data, count);
    pthread_mutex_unlock(&lock);
    errno = error;
    return count;
}

ssize_t write(int file, const void *data, size_t length) { return written(file, data, length, 0, 0); }
ssize_t pwrite(int file, const void *data, size_t length, off_t at) { return written(file, data, length, at, 1); }
ssize_t pwrite64(int file, const void *data, size_t length, off_t at) { return written(file, data, length, at, 1); }

/* One of the calls that are a number, a descriptor and a size. */
static int done(long call, int file, off_t size, char operation) {
    const char *name = name_of(file);
    if (!name) return syscall(call, file, size);
    pthread_mutex_lock(&lock);
    int result = syscall(call, file, size);
    int error = errno;
    if (!result) note(*name ? operation : 'd', name, size, 0, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int ftruncate(int file, off_t size) { return done(SYS_ftruncate, file, size, 't'); }
int ftruncate64(int file, off_t size) { return done(SYS_ftruncate, file, size, 't'); }
int fsync(int file) { return done(SYS_fsync, file, 0, 's'); }
int fdatasync(int file) { return done(SYS_fdatasync, file, 0, 's'); }

int unlink(const char *path) {
    const char *name = below(path);
    if (!name) return syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    pthread_mutex_lock(&lock);
    int result = syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    int error = errno;
    if (!result) note('u', name, 0, 0, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}
