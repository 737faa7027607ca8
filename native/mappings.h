#pragma once
#include <stdint.h>

/*
 * A stream of what processes map to execute, start, and end, from perf's side-band records on all processors.
 *
 * usdtkit.mappings calls it through cffi. In: processors, and the kinds of news that are wanted. Out: news, in the order
 * of their time. The kernel writes records into a ring of each processor; nobody is woken for a record, the caller reads
 * when it likes. There are many records and few are news: a file is told once, when a process maps it that was not seen
 * before. A function that can fail returns a negative errno. Only one thread at a time may use a stream.
 */

/* A file as the kernel's records show it. On overlayfs this is not the file that uprobes use. */
struct usdtkit_file_key {
  uint32_t major, minor;
  uint64_t inode, generation;
};

/* Kinds of news, which are bits: an unseen file was mapped; a watched one was, or one in a watched process; a process was
 * started by `parent`; it began another program; it ended; anything was mapped to execute. */
enum {
  USDTKIT_NEW_FILE = 1,
  USDTKIT_MAPPED = 2,
  USDTKIT_FORK = 4,
  USDTKIT_EXEC = 8,
  USDTKIT_EXIT = 16,
  USDTKIT_EVERY_MAPPING = 32
};

/* One piece of news, which has `size` bytes: behind the struct comes the path of the file as the process sees it, with a
 * NUL, or the name of the program that has begun. `time` is CLOCK_MONOTONIC in nanoseconds, and `offset` is that of
 * `start` in the file. What does not belong to the kind is 0. */
struct usdtkit_news {
  uint32_t size, kind, pid, parent;
  uint64_t time, start, end, offset;
  struct usdtkit_file_key file;
};

typedef struct usdtkit_mappings usdtkit_mappings;

/* Listens on these processors for news of the `kinds`. `pages` is the size of each ring, a power of two. The descriptor
 * is readable when `wakeup` bytes wait in a ring. */
int usdtkit_mappings_open(const int *cpus, uint32_t count, uint32_t kinds, uint32_t pages, uint32_t wakeup,
                          usdtkit_mappings **stream);
void usdtkit_mappings_close(usdtkit_mappings *stream);
int usdtkit_mappings_descriptor(const usdtkit_mappings *stream);

/* A file that is not new, and one that is new again. */
int usdtkit_mappings_know(usdtkit_mappings *stream, const struct usdtkit_file_key *file);
void usdtkit_mappings_forget(usdtkit_mappings *stream, const struct usdtkit_file_key *file);
/* A file each of whose mappings is told from now on, whatever its generation. */
int usdtkit_mappings_watch(usdtkit_mappings *stream, const struct usdtkit_file_key *file);
/* A process each of whose mappings is told from now on. It is forgotten when it ends, if ends are among the kinds. */
int usdtkit_mappings_watch_process(usdtkit_mappings *stream, uint32_t pid);

/* From now on tell only of this process and of those given before; and of the processes that they start, if the kinds of
 * news have USDTKIT_FORK or USDTKIT_EXIT. */
int usdtkit_mappings_only(usdtkit_mappings *stream, uint32_t pid);

/* Makes the descriptor readable, and ends a pause of `await`, as soon as this thread, or a thread or process that it
 * starts from now on, starts or ends another. That is told as otherwise. */
int usdtkit_mappings_wake_for(usdtkit_mappings *stream, const int *cpus, uint32_t count, uint32_t tid);

/* What has come since the last call: the bytes of all news, which stay until the next call. `lost` is the number of
 * records that found no room in a ring since then; before Linux 6.0 it is known late, or not at all. */
int64_t usdtkit_mappings_take(usdtkit_mappings *stream, const uint8_t **news, uint64_t *lost);

/* As `take`, after `pause` milliseconds, or when the descriptor is readable, though not sooner than two milliseconds
 * after the last time; again and again until there is news or a loss, but at most `rounds` times. -ECANCELED as soon as
 * the descriptor `stop` is readable. */
int64_t usdtkit_mappings_await(usdtkit_mappings *stream, int stop, uint32_t pause, uint32_t rounds,
                               const uint8_t **news, uint64_t *lost);
