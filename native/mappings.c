/* The stream of mappings, which mappings.h describes: perf events that count nothing, their rings, and sets of files. */

#define _GNU_SOURCE
#include <errno.h>
#include <linux/perf_event.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "mappings.h"

enum { FORMAT_LOST = 1 << 4 }; /* of perf_event_attr's read_format, Linux 6.0 */
enum { MOST_SEEN = 1 << 18 };  /* files; a process that makes files without end must not take all memory */
enum { LEAST_PAUSE = 2 };      /* milliseconds */
enum { TRAILER = 16 };         /* u32 pid, tid, u64 time: at the end of each record, by sample_type */

/* Records as the kernel writes them, behind struct perf_event_header. */
struct mapped {
  uint32_t pid, tid;
  uint64_t start, length, offset;
  struct usdtkit_file_key file;
  uint32_t protection, flags;
  char name[];
};
struct task {
  uint32_t pid, parent, tid, parent_tid;
};
struct named {
  uint32_t pid, tid;
  char name[];
};

/* A hash table of files: linear probing, at most half full. An entry whose inode is 0 is free, as no file has that. */
struct set {
  struct usdtkit_file_key *entries;
  size_t size, used; /* size is a power of two, or 0 */
};

struct cpu {
  int event;
  struct perf_event_mmap_page *ring;
  uint64_t head, waited, lost; /* waited: how much there was at the last look; lost: as the event counts it */
};

/* An event of one thread and its descendants that only wakes: what its ring of one page holds is told by the others. */
struct waker {
  int event;
  struct perf_event_mmap_page *ring;
};

struct record {
  uint64_t time;
  const struct perf_event_header *header;
};

struct usdtkit_mappings {
  int epoll;
  uint32_t kinds, count;
  size_t page, ring_size;
  int knows_losses; /* whether events count them */
  struct cpu *cpus;
  struct waker *wakers;
  uint32_t waker_count;
  uint64_t last; /* when the rings were looked at, in milliseconds */
  struct set seen, watched, only; /* where a process is meant, it is the inode */
  uint8_t *copy; /* what was in the rings */
  struct record *records;
  size_t records_size;
  uint8_t *news;
  size_t news_size, news_used;
};

/* Sets */

static size_t home(const struct set *set, const struct usdtkit_file_key *key) {
  uint64_t hash = key->inode * 0x9e3779b97f4a7c15ULL ^ (key->generation << 32 | key->generation >> 32);
  hash ^= ((uint64_t)key->major << 20 | key->minor) * 0xc2b2ae3d27d4eb4fULL;
  return (size_t)(hash ^ hash >> 29) & (set->size - 1);
}

static int is_same(const struct usdtkit_file_key *a, const struct usdtkit_file_key *b) {
  return a->inode == b->inode && a->generation == b->generation && a->major == b->major && a->minor == b->minor;
}

/* The entry of a key, or the free one where it would be. */
static struct usdtkit_file_key *entry(const struct set *set, const struct usdtkit_file_key *key) {
  size_t at = home(set, key);
  while (set->entries[at].inode && !is_same(&set->entries[at], key)) at = (at + 1) & (set->size - 1);
  return &set->entries[at];
}

static int has(const struct set *set, const struct usdtkit_file_key *key) {
  return set->used && entry(set, key)->inode;
}

static int grow(struct set *set) {
  struct set larger = {.size = set->size ? 2 * set->size : 1024, .used = set->used};
  larger.entries = calloc(larger.size, sizeof *larger.entries);
  if (!larger.entries) return -ENOMEM;
  for (size_t at = 0; at < set->size; at++)
    if (set->entries[at].inode) *entry(&larger, &set->entries[at]) = set->entries[at];
  free(set->entries);
  *set = larger;
  return 0;
}

static int add(struct set *set, const struct usdtkit_file_key *key) {
  if (!key->inode) return 0;
  if (set->used >= MOST_SEEN) { /* all are new again, which costs a look at each */
    memset(set->entries, 0, set->size * sizeof *set->entries);
    set->used = 0;
  }
  if (2 * set->used >= set->size && grow(set)) return -ENOMEM;
  struct usdtkit_file_key *place = entry(set, key);
  set->used += !place->inode;
  *place = *key;
  return 0;
}

static void take_out(struct set *set, const struct usdtkit_file_key *key) {
  if (!has(set, key)) return;
  size_t mask = set->size - 1, hole = (size_t)(entry(set, key) - set->entries);
  set->used--;
  /* Entries that come behind it move up where it would stop the search for them. */
  for (size_t at = (hole + 1) & mask; set->entries[at].inode; at = (at + 1) & mask) {
    if (((at - home(set, &set->entries[at])) & mask) < ((at - hole) & mask)) continue;
    set->entries[hole] = set->entries[at];
    hole = at;
  }
  set->entries[hole].inode = 0;
}

/* Opening and closing */

static int open_event(const usdtkit_mappings *stream, int cpu, uint32_t wakeup) {
  struct perf_event_attr a = {
      .size = sizeof a,
      .type = PERF_TYPE_SOFTWARE,
      .config = PERF_COUNT_SW_DUMMY,
      .sample_type = PERF_SAMPLE_TID | PERF_SAMPLE_TIME,
      .read_format = FORMAT_LOST,
      .mmap = 1,
      .mmap2 = 1,
      .comm = (stream->kinds & USDTKIT_EXEC) != 0,
      .comm_exec = (stream->kinds & USDTKIT_EXEC) != 0,
      .task = (stream->kinds & (USDTKIT_FORK | USDTKIT_EXIT)) != 0,
      .sample_id_all = 1,
      .use_clockid = 1,
      .clockid = 1, /* CLOCK_MONOTONIC */
      .watermark = 1,
      .wakeup_watermark = wakeup,
  };
  long event = syscall(SYS_perf_event_open, &a, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC);
  if (event < 0 && errno == EINVAL) {
    a.read_format = 0;
    event = syscall(SYS_perf_event_open, &a, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC);
  }
  return event < 0 ? -errno : (int)event;
}

static int open_cpu(usdtkit_mappings *stream, int cpu, uint32_t wakeup) {
  int event = open_event(stream, cpu, wakeup);
  if (event == -ENODEV) return 0; /* the processor was taken offline meanwhile */
  if (event < 0) return event;
  struct cpu *own = &stream->cpus[stream->count++];
  own->event = event;
  own->ring = mmap(NULL, stream->page + stream->ring_size, PROT_READ | PROT_WRITE, MAP_SHARED, event, 0);
  if (own->ring == MAP_FAILED) {
    own->ring = NULL;
    return -errno;
  }
  struct epoll_event interest = {.events = EPOLLIN};
  return epoll_ctl(stream->epoll, EPOLL_CTL_ADD, event, &interest) ? -errno : 0;
}

int usdtkit_mappings_open(const int *cpus, uint32_t count, uint32_t kinds, uint32_t pages, uint32_t wakeup,
                          usdtkit_mappings **out) {
  usdtkit_mappings *stream = calloc(1, sizeof *stream);
  if (!stream) return -ENOMEM;
  stream->kinds = kinds;
  stream->page = (size_t)sysconf(_SC_PAGESIZE);
  stream->ring_size = pages * stream->page;
  stream->epoll = epoll_create1(EPOLL_CLOEXEC);
  int result = stream->epoll < 0 ? -errno : 0;
  stream->cpus = calloc(count ? count : 1, sizeof *stream->cpus);
  stream->copy = malloc(count * stream->ring_size + 1); /* pages of it that are never used take no memory */
  if (!stream->cpus || !stream->copy) result = -ENOMEM;
  for (uint32_t at = 0; at < count && result == 0; at++) result = open_cpu(stream, cpus[at], wakeup);
  if (result) usdtkit_mappings_close(stream);
  else *out = stream;
  return result;
}

static int add_waker(usdtkit_mappings *stream, int cpu, uint32_t tid) {
  struct perf_event_attr a = {
      .size = sizeof a,
      .type = PERF_TYPE_SOFTWARE,
      .config = PERF_COUNT_SW_DUMMY,
      .task = 1,
      .inherit = 1,
      .watermark = 1,
      .wakeup_watermark = 1,
  };
  int event = (int)syscall(SYS_perf_event_open, &a, (pid_t)tid, cpu, -1, PERF_FLAG_FD_CLOEXEC);
  if (event < 0) return errno == ENODEV ? 0 : -errno;
  void *ring = mmap(NULL, 2 * stream->page, PROT_READ | PROT_WRITE, MAP_SHARED, event, 0);
  struct epoll_event interest = {.events = EPOLLIN};
  struct waker *wakers = realloc(stream->wakers, (stream->waker_count + 1) * sizeof *wakers);
  if (wakers) stream->wakers = wakers;
  if (ring == MAP_FAILED || !wakers || epoll_ctl(stream->epoll, EPOLL_CTL_ADD, event, &interest)) {
    int error = wakers ? errno : ENOMEM;
    if (ring != MAP_FAILED) munmap(ring, 2 * stream->page);
    close(event);
    return -error;
  }
  wakers[stream->waker_count++] = (struct waker){event, ring};
  return 0;
}

int usdtkit_mappings_wake_for(usdtkit_mappings *stream, const int *cpus, uint32_t count, uint32_t tid) {
  int result = 0;
  for (uint32_t at = 0; at < count && result == 0; at++) result = add_waker(stream, cpus[at], tid);
  return result;
}

void usdtkit_mappings_close(usdtkit_mappings *stream) {
  for (uint32_t at = 0; at < stream->waker_count; at++) {
    munmap(stream->wakers[at].ring, 2 * stream->page);
    close(stream->wakers[at].event);
  }
  free(stream->wakers);
  for (uint32_t at = 0; at < stream->count; at++) {
    if (stream->cpus[at].ring) munmap(stream->cpus[at].ring, stream->page + stream->ring_size);
    close(stream->cpus[at].event);
  }
  if (stream->epoll >= 0) close(stream->epoll);
  free(stream->cpus);
  free(stream->copy);
  free(stream->records);
  free(stream->news);
  free(stream->seen.entries);
  free(stream->watched.entries);
  free(stream->only.entries);
  free(stream);
}

int usdtkit_mappings_descriptor(const usdtkit_mappings *stream) { return stream->epoll; }

static struct usdtkit_file_key without_generation(const struct usdtkit_file_key *file) {
  struct usdtkit_file_key key = *file;
  key.generation = 0;
  return key;
}

int usdtkit_mappings_know(usdtkit_mappings *stream, const struct usdtkit_file_key *file) {
  return add(&stream->seen, file);
}

void usdtkit_mappings_forget(usdtkit_mappings *stream, const struct usdtkit_file_key *file) {
  take_out(&stream->seen, file);
}

int usdtkit_mappings_watch(usdtkit_mappings *stream, const struct usdtkit_file_key *file) {
  struct usdtkit_file_key key = without_generation(file);
  return add(&stream->watched, &key);
}

static struct usdtkit_file_key of_process(uint32_t pid) { return (struct usdtkit_file_key){.inode = pid}; }

int usdtkit_mappings_watch_process(usdtkit_mappings *stream, uint32_t pid) {
  struct usdtkit_file_key key = of_process(pid);
  return add(&stream->watched, &key);
}

static int is_told_of(const usdtkit_mappings *stream, uint32_t pid) {
  struct usdtkit_file_key key = of_process(pid);
  return !stream->only.size || has(&stream->only, &key);
}

int usdtkit_mappings_only(usdtkit_mappings *stream, uint32_t pid) {
  struct usdtkit_file_key key = of_process(pid);
  return add(&stream->only, &key);
}

/* Reading */

/* Moves what waits in all rings to `copy`; the records in a ring may go round its end. */
static size_t copy_rings(usdtkit_mappings *stream) {
  size_t used = 0;
  for (uint32_t at = 0; at < stream->waker_count; at++) {
    struct perf_event_mmap_page *ring = stream->wakers[at].ring;
    uint64_t head = __atomic_load_n(&ring->data_head, __ATOMIC_ACQUIRE);
    __atomic_store_n(&ring->data_tail, head, __ATOMIC_RELEASE);
  }
  for (uint32_t at = 0; at < stream->count; at++) /* all positions first, so that few records overtake others */
    stream->cpus[at].head = __atomic_load_n(&stream->cpus[at].ring->data_head, __ATOMIC_ACQUIRE);
  for (uint32_t at = 0; at < stream->count; at++) {
    struct cpu *cpu = &stream->cpus[at];
    const uint8_t *data = (const uint8_t *)cpu->ring + stream->page;
    uint64_t tail = cpu->ring->data_tail, waiting = cpu->head - tail;
    if (waiting > stream->ring_size) waiting = stream->ring_size;
    cpu->waited = waiting;
    size_t from = tail & (stream->ring_size - 1);
    size_t first = stream->ring_size - from < waiting ? stream->ring_size - from : waiting;
    memcpy(stream->copy + used, data + from, first);
    memcpy(stream->copy + used + first, data, waiting - first);
    __atomic_store_n(&cpu->ring->data_tail, cpu->head, __ATOMIC_RELEASE);
    used += waiting;
  }
  return used;
}

static int by_time(const void *a, const void *b) {
  uint64_t first = ((const struct record *)a)->time, second = ((const struct record *)b)->time;
  return first < second ? -1 : first > second;
}

static int is_watched(const usdtkit_mappings *stream, const struct mapped *mapped) {
  struct usdtkit_file_key any_generation = without_generation(&mapped->file), process = of_process(mapped->pid);
  return has(&stream->watched, &any_generation) || has(&stream->watched, &process);
}

/* Whether a record may be news. Nearly all are of files that were seen before, and those need not be sorted. */
static int may_be_news(const usdtkit_mappings *stream, const struct perf_event_header *header) {
  const struct mapped *mapped = (const void *)(header + 1);
  if (header->type != PERF_RECORD_MMAP2 || header->size < sizeof *header + sizeof *mapped + TRAILER) return 1;
  if (stream->kinds & USDTKIT_EVERY_MAPPING) return 1;
  if (stream->kinds & USDTKIT_NEW_FILE && !has(&stream->seen, &mapped->file)) return 1;
  return is_watched(stream, mapped);
}

/* The records of all rings that may be news, in the order of their time: how many there are. */
static int64_t sort_records(usdtkit_mappings *stream, size_t size) {
  size_t count = 0, at = 0;
  while (at + sizeof(struct perf_event_header) <= size) {
    const struct perf_event_header *header = (const void *)(stream->copy + at);
    if (header->size < sizeof *header || header->size > size - at) return -EINVAL;
    if (count == stream->records_size) {
      size_t larger = count ? 2 * count : 256;
      struct record *records = realloc(stream->records, larger * sizeof *records);
      if (!records) return -ENOMEM;
      stream->records = records;
      stream->records_size = larger;
    }
    if (header->size >= sizeof *header + TRAILER && may_be_news(stream, header)) {
      uint64_t time;
      memcpy(&time, stream->copy + at + header->size - sizeof time, sizeof time);
      stream->records[count++] = (struct record){time, header};
    }
    at += header->size;
  }
  qsort(stream->records, count, sizeof *stream->records, by_time);
  return (int64_t)count;
}

static int tell(usdtkit_mappings *stream, struct usdtkit_news news, const char *name, size_t most) {
  size_t length = strnlen(name, most);
  size_t size = (sizeof news + length + 8) / 8 * 8; /* with a NUL */
  if (stream->news_used + size > stream->news_size) {
    size_t larger = 2 * stream->news_size + size + 4096;
    uint8_t *grown = realloc(stream->news, larger);
    if (!grown) return -ENOMEM;
    stream->news = grown;
    stream->news_size = larger;
  }
  uint8_t *out = stream->news + stream->news_used;
  news.size = (uint32_t)size;
  memset(out, 0, size);
  memcpy(out, &news, sizeof news);
  memcpy(out + sizeof news, name, length);
  stream->news_used += size;
  return 0;
}

static int tell_mapped(usdtkit_mappings *stream, const struct record *record, size_t size) {
  const struct mapped *mapped = (const void *)(record->header + 1);
  if (size < sizeof *mapped || !mapped->pid || !mapped->file.inode || !is_told_of(stream, mapped->pid)) return 0;
  struct usdtkit_news news = {
      .pid = mapped->pid,
      .time = record->time,
      .start = mapped->start,
      .end = mapped->start + mapped->length,
      .offset = mapped->offset,
      .file = mapped->file,
  };
  int result = 0;
  if (is_watched(stream, mapped)) news.kind |= USDTKIT_MAPPED;
  if (stream->kinds & USDTKIT_NEW_FILE && !has(&stream->seen, &mapped->file)) {
    result = add(&stream->seen, &mapped->file);
    news.kind |= USDTKIT_NEW_FILE;
  }
  news.kind |= stream->kinds & USDTKIT_EVERY_MAPPING;
  return result || !news.kind ? result : tell(stream, news, mapped->name, size - sizeof *mapped);
}

static int tell_task(usdtkit_mappings *stream, const struct record *record, size_t size, uint32_t kind) {
  const struct task *task = (const void *)(record->header + 1);
  if (size < sizeof *task || !task->pid || !(stream->kinds & kind)) return 0;
  /* A thread, which has the process of its parent; the end of a process is that of its first thread. */
  if (kind == USDTKIT_FORK ? task->pid == task->parent : task->pid != task->tid) return 0;
  if (!is_told_of(stream, kind == USDTKIT_FORK ? task->parent : task->pid)) return 0;
  struct usdtkit_file_key process = of_process(task->pid);
  if (kind == USDTKIT_EXIT) {
    take_out(&stream->only, &process);
    take_out(&stream->watched, &process);
  } else if (stream->only.size && add(&stream->only, &process)) {
    return -ENOMEM;
  }
  return tell(stream, (struct usdtkit_news){.kind = kind, .pid = task->pid, .parent = task->parent, .time = record->time},
              "", 0);
}

static int tell_record(usdtkit_mappings *stream, const struct record *record) {
  const struct perf_event_header *header = record->header;
  size_t size = header->size - sizeof *header - TRAILER;
  switch (header->type) {
  case PERF_RECORD_MMAP2: return tell_mapped(stream, record, size);
  case PERF_RECORD_FORK: return tell_task(stream, record, size, USDTKIT_FORK);
  case PERF_RECORD_EXIT: return tell_task(stream, record, size, USDTKIT_EXIT);
  case PERF_RECORD_COMM: {
    const struct named *named = (const void *)(header + 1);
    if (size < sizeof *named || !(header->misc & PERF_RECORD_MISC_COMM_EXEC)) return 0;
    if (!named->pid || !is_told_of(stream, named->pid)) return 0;
    struct usdtkit_news news = {.kind = USDTKIT_EXEC, .pid = named->pid, .time = record->time};
    return tell(stream, news, named->name, size - sizeof *named);
  }
  default: return 0;
  }
}

/* The kernel writes a record of a loss together with the next record that fits, which may never come. So the events are
 * asked, which know since Linux 6.0; before, the records must do. Nothing is lost while a ring is far from full. */
static uint64_t losses(usdtkit_mappings *stream, int64_t count) {
  uint64_t lost = 0, told = 0, answer[2];
  for (uint32_t at = 0; at < stream->count; at++) {
    struct cpu *cpu = &stream->cpus[at];
    if (cpu->waited < stream->ring_size / 4) continue;
    if (read(cpu->event, answer, sizeof answer) != sizeof answer) continue;
    stream->knows_losses = 1;
    lost += answer[1] - cpu->lost;
    cpu->lost = answer[1];
  }
  for (int64_t at = 0; at < count; at++) {
    const struct perf_event_header *header = stream->records[at].header;
    if (header->type == PERF_RECORD_LOST) told += ((const uint64_t *)(header + 1))[1];
  }
  return stream->knows_losses ? lost : told;
}

int64_t usdtkit_mappings_take(usdtkit_mappings *stream, const uint8_t **news, uint64_t *lost) {
  stream->news_used = 0;
  int64_t count = sort_records(stream, copy_rings(stream));
  if (count < 0) return count;
  *lost = losses(stream, count);
  for (int64_t at = 0; at < count; at++) {
    int result = tell_record(stream, &stream->records[at]);
    if (result) return result;
  }
  *news = stream->news;
  return (int64_t)stream->news_used;
}

static uint64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

int64_t usdtkit_mappings_await(usdtkit_mappings *stream, int stop, uint32_t pause, uint32_t rounds,
                               const uint8_t **news, uint64_t *lost) {
  for (;;) {
    struct pollfd awaited[] = {{.fd = stop, .events = POLLIN}, {.fd = stream->epoll, .events = POLLIN}};
    /* A program that starts threads all the time must not take the processor through us. */
    if (stream->waker_count && now_ms() - stream->last < LEAST_PAUSE && poll(awaited, 1, LEAST_PAUSE) < 0 &&
        errno != EINTR)
      return -errno;
    if (!awaited[0].revents && poll(awaited, 2, (int)pause) < 0 && errno != EINTR) return -errno;
    if (awaited[0].revents) return -ECANCELED;
    stream->last = now_ms();
    int64_t size = usdtkit_mappings_take(stream, news, lost);
    if (size || *lost || --rounds == 0) return size;
  }
}
