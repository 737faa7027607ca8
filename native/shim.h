#pragma once
#include <stdint.h>

/*
 * What usdtkit needs of the kernel, as plain calls: bpf(2), uprobes, the ring buffer.
 *
 * Called from Python through cffi (build_shim.py reads this very file). Every function that can fail returns a
 * negative errno; a call that a signal breaks off is made again. None keeps global state; file descriptors belong to the caller and carry close-on-exec.
 */

int usdtkit_map_create(uint32_t type, uint32_t key_size, uint32_t value_size, uint32_t max_entries, uint32_t flags,
                       const char *name);
int usdtkit_map_lookup(int fd, const void *key, void *value);
int usdtkit_map_update(int fd, const void *key, const void *value);
int usdtkit_map_delete(int fd, const void *key);
/* Writes the key after `key` (the first, where NULL) to `next`. */
int usdtkit_map_next_key(int fd, const void *key, void *next);
/* One step of a batched read. `cursor` opaque, at least key_size and 4 bytes; `first` on the first step. `count` in: room; out: entries read.
 * Returns 1 where more follow, 0 at the end. */
int usdtkit_map_lookup_batch(int fd, int first, void *cursor, void *keys, void *values, uint32_t *count);

/* Loads a program, while signals wait; `type`, `flags` and `expected` (its attach type) as linux/bpf.h numbers them. */
int usdtkit_prog_load(uint32_t type, const void *instructions, uint32_t count, uint32_t flags, uint32_t expected,
                      const char *name, char *log, uint32_t log_size);
int usdtkit_raw_tracepoint_open(int program, const char *name);

/* One link for `count` offsets of one file; `refs` may be NULL; pid 0 means every process. */
int usdtkit_link_uprobe_multi(int program, uint32_t attach_type, const char *path, const uint64_t *offsets,
                              const uint64_t *refs, const uint64_t *cookies, uint32_t count, int on_return, int pid);

/* One perf event for one offset. `type`, `return_bit` and `ref_shift` are what sysfs says of the uprobe PMU. */
int usdtkit_perf_uprobe(uint32_t type, uint32_t return_bit, uint32_t ref_shift, const char *path, uint64_t offset,
                        uint64_t ref, int on_return, int pid);
int usdtkit_link_perf(int program, int event, uint64_t cookie);
/* For kernels without perf links: no cookie, and detached when the event's descriptor is closed. */
int usdtkit_perf_set_program(int program, int event);
int usdtkit_perf_enable(int event);

/* The handle of an open file, up to 128 bytes, and its type; also where it is good for comparing only. Its size. */
int usdtkit_file_handle(int file, int *type, uint8_t *handle);
/* A descriptor, for reading, of the file with this handle, in the file system of another descriptor. */
int usdtkit_open_by_handle(int beside, int type, const uint8_t *handle, uint32_t size);
/* An O_PATH descriptor of an open file, in a mount that nobody but it is in. */
int usdtkit_clone_mount(int file);

/* A BPF ring buffer, mapped for reading. Used by one thread at a time. */
typedef struct usdtkit_ring usdtkit_ring;
int usdtkit_ring_open(int map, uint64_t size, usdtkit_ring **ring);
void usdtkit_ring_close(usdtkit_ring *ring);
/* Bytes of records that wait, some perhaps not yet submitted (see records.h), and where they begin. */
uint64_t usdtkit_ring_waiting(usdtkit_ring *ring, const void **data);
/* Gives back to the kernel so many bytes of those that waited. */
void usdtkit_ring_advance(usdtkit_ring *ring, uint64_t bytes);
/* Bytes that were ever reserved in the ring, and that were ever given back. */
uint64_t usdtkit_ring_reserved(const usdtkit_ring *ring);
uint64_t usdtkit_ring_consumed(const usdtkit_ring *ring);
/* The next record of `data`, as usdtkit_next_record of records.h finds it, for callers that cannot include that. */
int usdtkit_record_next(const void *data, uint64_t end, uint64_t *at, const uint8_t **payload, uint32_t *length);

/*
 * One event of a CPU that counts nothing and tells of each executable mapping that a process there makes. Its ring is a
 * page of positions and then 2^n pages of records, to be mapped by the caller; it is ready after each record. Reading
 * the event gives two numbers, of which the second, since Linux 6.0, says how many records were lost so far.
 */
int usdtkit_perf_mappings(int cpu);
/* Moves the records that wait in such a ring, of `size` bytes without its first page, to `out`, which has room for all. */
uint64_t usdtkit_perf_take(void *ring, uint64_t size, void *out);

/* The signal that this process gets when the thread that started it ends. */
int usdtkit_parent_death_signal(int number);

/*
 * Becomes this user (all threads), without groups; gives up the capabilities of the calling thread, those that it could
 * get back included.
 */
int usdtkit_drop_privileges(uint32_t uid, uint32_t gid);
