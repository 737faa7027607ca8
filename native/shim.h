#pragma once
#include <stdint.h>

/*
 * System calls that the tracer needs: bpf(2), uprobes, ring buffers, and some for files and privileges.
 *
 * usdtkit._ffi calls them through cffi; build_shim.py reads this file. In: numbers and buffers of the caller. Out: file
 * descriptors, which belong to the caller and are closed by exec, or bytes in those buffers. A function that can fail
 * returns a negative errno. A call that a signal has interrupted is made again. There is no global state.
 */

/* `inner` is the descriptor of a map that is like the values of an array of maps, else 0. */
int usdtkit_map_create(uint32_t type, uint32_t key_size, uint32_t value_size, uint32_t max_entries, uint32_t flags,
                       int inner, const char *name);
int usdtkit_map_lookup(int fd, const void *key, void *value);
int usdtkit_map_update(int fd, const void *key, const void *value);
/* As update, but an entry that is there stays: -EEXIST. */
int usdtkit_map_insert(int fd, const void *key, const void *value);
int usdtkit_map_delete(int fd, const void *key);
/* Writes the key that follows `key` to `next`, or the first key if `key` is NULL. */
int usdtkit_map_next_key(int fd, const void *key, void *next);
/* One step of a batched read, with `first` for the first step. `cursor` is opaque and has at least key_size and 4
 * bytes. `count` has the capacity before the call, and the number of entries after it. Returns 1 if more follow, 0 at
 * the end. */
int usdtkit_map_lookup_batch(int fd, int first, void *cursor, void *keys, void *values, uint32_t *count);

/* As update, of so many entries, in Linux 5.6 and of arrays of maps in 5.13. */
int usdtkit_map_update_batch(int fd, const void *keys, const void *values, uint32_t count);

/* Gives the kernel types of our own, in BTF. Returns the descriptor. */
int usdtkit_btf_load(const void *data, uint32_t size);

/* What the functions of a program are: where each begins, in instructions, and the number of its type in `btf`. */
typedef struct usdtkit_function {
  uint32_t first, type;
} usdtkit_function;
typedef struct usdtkit_functions {
  const usdtkit_function *function;
  uint32_t count;
  int32_t btf;
} usdtkit_functions;

/* Loads a program while signals are blocked. `type`, `flags` and `expected`, the attach type, are those of linux/bpf.h.
 * `kernel_type` is the number of the kernel's type (btf.h) that a program for an iterator is about, else 0. `functions`
 * is NULL unless the program has functions that the kernel calls. */
int usdtkit_prog_load(uint32_t type, const void *instructions, uint32_t count, uint32_t flags, uint32_t expected,
                      uint32_t kernel_type, const usdtkit_functions *functions, const char *name, char *log,
                      uint32_t log_size);
int usdtkit_raw_tracepoint_open(int program, const char *name);
/* What an iterator's program writes for each item of this process, or with pid 0 of all: the descriptor is read. */
int usdtkit_iterator(int program, uint32_t pid);

/* One link for `count` offsets of one file. `refs` may be NULL. With pid 0 the link is for every process. */
int usdtkit_link_uprobe_multi(int program, uint32_t attach_type, const char *path, const uint64_t *offsets,
                              const uint64_t *refs, const uint64_t *cookies, uint32_t count, int on_return, int pid);

/* The link whose number follows this one; -ENOENT after the last. */
int usdtkit_link_next(uint32_t number);
/* What a link of any process is attached to. Returns 1 for a uprobe_multi link, 0 for any other. `path` has room for
 * `size` bytes. `count` has the room in `offsets` before the call, and the number of the link's sites after it. */
int usdtkit_link_uprobes(uint32_t number, char *path, uint32_t size, uint64_t *offsets, uint32_t *count, uint32_t *pid);
/* The same of a perf event with a program, which is a descriptor of another process: 1 for a uprobe, 0 for any other. */
int usdtkit_perf_uprobe_of(int pid, int descriptor, char *path, uint32_t size, uint64_t *offset);

/* One perf event for one offset. sysfs describes the uprobe PMU by `type`, `return_bit` and `ref_shift`. */
int usdtkit_perf_uprobe(uint32_t type, uint32_t return_bit, uint32_t ref_shift, const char *path, uint64_t offset,
                        uint64_t ref, int on_return, int pid);
/* A software event of this kind, which samples user mode with this frequency: on a CPU (`pid` -1), or in a thread and in
 * those that it starts from now on (`cpu` -1). It is disabled. */
int usdtkit_perf_sample(uint64_t kind, uint64_t frequency, int pid, int cpu);
int usdtkit_link_perf(int program, int event, uint64_t cookie);
/* For kernels without perf links. There is no cookie, and the program is detached when the event is closed. */
int usdtkit_perf_set_program(int program, int event);
int usdtkit_perf_enable(int event);

/* Writes the handle of an open file, of up to 128 bytes, and its type, and returns its size. Some file systems give
 * handles that can only be compared. */
int usdtkit_file_handle(int file, int *type, uint8_t *handle);
/* Opens the file with this handle for reading, in the file system of the descriptor `beside`. */
int usdtkit_open_by_handle(int beside, int type, const uint8_t *handle, uint32_t size);
/* An O_PATH descriptor of an open file, in a mount of its own. */
int usdtkit_clone_mount(int file);

/* A BPF ring buffer, mapped for reading. Only one thread at a time may use it. */
typedef struct usdtkit_ring usdtkit_ring;
int usdtkit_ring_open(int map, uint64_t size, usdtkit_ring **ring);
void usdtkit_ring_close(usdtkit_ring *ring);
/* The bytes of the waiting records, and where they begin. Some may not be submitted yet (see records.h). */
uint64_t usdtkit_ring_waiting(usdtkit_ring *ring, const void **data);
/* Gives back to the kernel the first `bytes` of those that wait. */
void usdtkit_ring_advance(usdtkit_ring *ring, uint64_t bytes);
/* The bytes that have been reserved in the ring so far, and those that have been given back. */
uint64_t usdtkit_ring_reserved(const usdtkit_ring *ring);
uint64_t usdtkit_ring_consumed(const usdtkit_ring *ring);
/* The same as usdtkit_next_record of records.h, for callers that cannot include it. */
int usdtkit_record_next(const void *data, uint64_t end, uint64_t *at, const uint8_t **payload, uint32_t *length);

/* Sets the signal that this process gets when the thread that started it ends. */
int usdtkit_parent_death_signal(int number);

/* 
 * Changes all threads to this user, without supplementary groups. Drops the capabilities of the calling thread for
 * good.
 */
int usdtkit_drop_privileges(uint32_t uid, uint32_t gid);
