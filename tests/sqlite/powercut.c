/*
 * Records what a program writes to some files, so that a power cut at any moment can be played afterwards.
 *
 * Preloaded (LD_PRELOAD). Follows the files whose names begin with $POWERCUT_PREFIX, up to 16 of them, and appends to
 * $POWERCUT_TRACE one record for each write, truncation and sync: a header of 24 bytes and the data. Syncs are recorded
 * and not done: what is on the disk after a cut is for the player to say. One lock keeps the records in order.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum { FILES = 16, HANDLES = 4096 };

struct record {
    uint32_t operation; /* 'O' open (data: name), 'W' write, 'T' truncate (offset: size), 'S' sync, 'U' unlink */
    uint32_t file;
    uint64_t offset;
    uint64_t length;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char names[FILES][512];
static signed char file_of[HANDLES]; /* 1 + index into names, 0 for a handle that is not followed */
static int trace = -1;

#define REAL(result, name, ...)                                      \
    static result (*real_##name)(__VA_ARGS__);                       \
    if (!real_##name) real_##name = (result (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

static void put(uint32_t operation, uint32_t file, uint64_t offset, const void *data, uint64_t length)
{
    REAL(ssize_t, writev, int, const struct iovec *, int);
    REAL(int, open64, const char *, int, ...);
    struct record head = {operation, file, offset, length};
    struct iovec parts[2] = {{&head, sizeof head}, {(void *)data, length}};
    if (trace < 0) trace = real_open64(getenv("POWERCUT_TRACE"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (real_writev(trace, parts, length ? 2 : 1) != (ssize_t)(sizeof head + length)) abort();
}

static int find(const char *name)
{
    const char *prefix = getenv("POWERCUT_PREFIX");
    const char *slash = strrchr(name, '/'), *base = prefix ? strrchr(prefix, '/') : NULL;
    if (!slash || !base || strncmp(slash, base, strlen(base)) != 0) return -1;
    if (strstr(slash, "-shm") || strstr(slash, "-checkpoint")) return -1; /* memory; a lock */
    for (int index = 0; index < FILES; index++) {
        if (!names[index][0]) {
            strncpy(names[index], slash + 1, sizeof names[index] - 1);
            put('O', index, 0, slash + 1, strlen(slash + 1));
            return index;
        }
        if (strcmp(names[index], slash + 1) == 0) return index;
    }
    abort();
}

static void follow(int handle, const char *name)
{
    if (handle < 0 || handle >= HANDLES) return;
    pthread_mutex_lock(&lock);
    file_of[handle] = (signed char)(find(name) + 1);
    pthread_mutex_unlock(&lock);
}

static int followed(int handle)
{
    return handle >= 0 && handle < HANDLES ? file_of[handle] - 1 : -1;
}

#define OPEN(function)                                                   \
    int function(const char *name, int flags, ...)                       \
    {                                                                    \
        REAL(int, function, const char *, int, ...);                     \
        va_list more;                                                    \
        va_start(more, flags);                                           \
        int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, int) : 0; \
        va_end(more);                                                    \
        int handle = real_##function(name, flags, mode);                 \
        follow(handle, name);                                            \
        return handle;                                                   \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(function)                                                 \
    int function(int folder, const char *name, int flags, ...)           \
    {                                                                    \
        REAL(int, function, int, const char *, int, ...);                \
        va_list more;                                                    \
        va_start(more, flags);                                           \
        int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, int) : 0; \
        va_end(more);                                                    \
        int handle = real_##function(folder, name, flags, mode);         \
        follow(handle, name);                                            \
        return handle;                                                   \
    }
OPENAT(openat)
OPENAT(openat64)

int close(int handle)
{
    REAL(int, close, int);
    if (handle >= 0 && handle < HANDLES) file_of[handle] = 0;
    return real_close(handle);
}

#define PWRITE(function)                                                               \
    ssize_t function(int handle, const void *data, size_t length, off_t offset)        \
    {                                                                                  \
        REAL(ssize_t, function, int, const void *, size_t, off_t);                     \
        int file = followed(handle);                                                   \
        if (file < 0) return real_##function(handle, data, length, offset);            \
        pthread_mutex_lock(&lock);                                                     \
        ssize_t done = real_##function(handle, data, length, offset);                  \
        if (done > 0) put('W', file, offset, data, done);                              \
        pthread_mutex_unlock(&lock);                                                   \
        return done;                                                                   \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

ssize_t write(int handle, const void *data, size_t length)
{
    REAL(ssize_t, write, int, const void *, size_t);
    int file = followed(handle);
    if (file < 0) return real_write(handle, data, length);
    pthread_mutex_lock(&lock);
    ssize_t done = real_write(handle, data, length);
    if (done > 0) put('W', file, lseek(handle, 0, SEEK_CUR) - done, data, done);
    pthread_mutex_unlock(&lock);
    return done;
}

#define TRUNCATE(function)                                         \
    int function(int handle, off_t size)                           \
    {                                                              \
        REAL(int, function, int, off_t);                           \
        int file = followed(handle);                               \
        if (file < 0) return real_##function(handle, size);        \
        pthread_mutex_lock(&lock);                                 \
        int done = real_##function(handle, size);                  \
        if (done == 0) put('T', file, size, NULL, 0);              \
        pthread_mutex_unlock(&lock);                               \
        return done;                                               \
    }
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)

#define SYNC(function)                                             \
    int function(int handle)                                       \
    {                                                              \
        REAL(int, function, int);                                  \
        int file = followed(handle);                               \
        if (file < 0) return real_##function(handle);              \
        pthread_mutex_lock(&lock);                                 \
        put('S', file, 0, NULL, 0);                                \
        pthread_mutex_unlock(&lock);                               \
        return 0;                                                  \
    }
SYNC(fsync)
SYNC(fdatasync)

int unlink(const char *name)
{
    REAL(int, unlink, const char *);
    pthread_mutex_lock(&lock);
    int file = find(name);
    if (file >= 0) put('U', file, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return real_unlink(name);
}
