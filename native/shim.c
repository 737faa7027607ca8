/* System calls for the tracer, which shim.h describes. Each function fills the attributes of one call, and makes it. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/perf_event.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "records.h"
#include "shim.h"

/* 
 * The commands and attributes of bpf(2) in the kernel's ABI. They are repeated here because the headers of a
 * distribution are often older than its kernel (uprobe_multi came with Linux 6.6).
 */
enum {
  MAP_CREATE = 0,
  MAP_LOOKUP = 1,
  MAP_UPDATE = 2,
  MAP_DELETE = 3,
  MAP_NEXT_KEY = 4,
  PROG_LOAD = 5,
  OBJECT_INFO = 15,
  RAW_TRACEPOINT_OPEN = 17,
  BTF_LOAD = 18,
  TASK_FD_QUERY = 20,
  MAP_LOOKUP_BATCH = 24,
  MAP_UPDATE_BATCH = 26,
  LINK_CREATE = 28,
  LINK_BY_ID = 30,
  LINK_NEXT_ID = 31,
  ITER_CREATE = 33
};
enum { IF_ABSENT = 1 }; /* BPF_NOEXIST */
enum { LINK_TYPE_UPROBE_MULTI = 12, FD_TYPE_UPROBE = 4, FD_TYPE_URETPROBE = 5 };
enum { ATTACH_ITERATOR = 28, ATTACH_PERF_EVENT = 41, UPROBE_MULTI_RETURN = 1 };
/* For the same reason: the system call open_tree (Linux 5.2), which has this number on all architectures, and a
 * flag. */
enum { OPEN_TREE = 428, CLONE_TREE = 1 };
enum { HANDLE_TO_COMPARE = 0x200 }; /* AT_HANDLE_FID, Linux 6.5 */

struct map_create_attr {
  uint32_t map_type, key_size, value_size, max_entries, map_flags, inner_map_fd, numa_node;
  char map_name[16];
};

struct map_element_attr {
  uint32_t map_fd;
  uint64_t key __attribute__((aligned(8)));
  uint64_t value; /* or the next key */
  uint64_t flags;
};

struct map_batch_attr {
  uint64_t in_batch, out_batch, keys, values;
  uint32_t count, map_fd;
  uint64_t elem_flags, flags;
};

struct prog_load_attr {
  uint32_t prog_type, insn_cnt;
  uint64_t insns, license;
  uint32_t log_level, log_size;
  uint64_t log_buf;
  uint32_t kern_version, prog_flags;
  char prog_name[16];
  uint32_t prog_ifindex, expected_attach_type, prog_btf_fd, func_info_rec_size;
  uint64_t func_info;
  uint32_t func_info_cnt, line_info_rec_size;
  uint64_t line_info;
  uint32_t line_info_cnt, attach_btf_id;
};

struct btf_load_attr {
  uint64_t btf, btf_log_buf;
  uint32_t btf_size, btf_log_size, btf_log_level, padding;
};

struct raw_tracepoint_attr {
  uint64_t name;
  uint32_t prog_fd, padding;
};

struct link_uprobe_multi_attr {
  uint32_t prog_fd, target_fd, attach_type, flags;
  uint64_t path, offsets, ref_ctr_offsets, cookies;
  uint32_t cnt, multi_flags, pid, padding;
};

struct link_iterator_attr {
  uint32_t prog_fd, target_fd, attach_type, flags;
  uint64_t info;
  uint32_t info_size, padding;
};

struct iterator_attr {
  uint32_t link_fd, flags;
};

struct link_perf_attr {
  uint32_t prog_fd, target_fd, attach_type, flags;
  uint64_t cookie;
};

struct id_attr {
  uint32_t id, next_id, open_flags;
};

struct info_attr {
  uint32_t bpf_fd, info_len;
  uint64_t info;
};

/* The part of bpf_link_info that links of any type have, and that of uprobe_multi links (Linux 6.8). */
struct link_info {
  uint32_t type, id, prog_id, padding;
  uint64_t path, offsets, ref_ctr_offsets, cookies;
  uint32_t path_size, count, flags, pid;
};

struct task_fd_attr {
  uint32_t pid, fd, flags, buf_len;
  uint64_t buf;
  uint32_t prog_id, fd_type;
  uint64_t probe_offset, probe_addr;
};

static uint64_t address(const void *pointer) { return (uint64_t)(uintptr_t)pointer; }

/* How often a call is made that is interrupted. The timers of a program may interrupt it many times. */
enum { ATTEMPTS = 64 };

static int was_interrupted(long result) { return result < 0 && (errno == EINTR || errno == EAGAIN); }

static int bpf(int command, void *attributes, unsigned size) {
  long result;
  int attempts = 0;
  do {
    result = syscall(SYS_bpf, command, attributes, size);
  } while (was_interrupted(result) && ++attempts < ATTEMPTS);
  return result < 0 ? -errno : (int)result;
}

/*
 * The verifier stops with EAGAIN if a signal is pending. If it needs more time than the period of a program's timer, no
 * number of attempts would be enough, so signals are blocked meanwhile.
 */
static int bpf_without_signals(int command, void *attributes, unsigned size) {
  sigset_t all, previous;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &previous);
  int result = bpf(command, attributes, size);
  pthread_sigmask(SIG_SETMASK, &previous, NULL);
  return result;
}

static void copy_name(char out[16], const char *name) {
  size_t length = strnlen(name, 15);
  memcpy(out, name, length);
  out[length] = 0;
}

int usdtkit_map_create(uint32_t type, uint32_t key_size, uint32_t value_size, uint32_t max_entries, uint32_t flags,
                       int inner, const char *name) {
  struct map_create_attr a = {.map_type = type,
                              .key_size = key_size,
                              .value_size = value_size,
                              .max_entries = max_entries,
                              .map_flags = flags,
                              .inner_map_fd = (uint32_t)inner};
  copy_name(a.map_name, name);
  return bpf(MAP_CREATE, &a, sizeof a);
}

static int map_element(int command, int fd, const void *key, const void *value, uint64_t flags) {
  struct map_element_attr a;
  memset(&a, 0, sizeof a); /* the padding too: the kernel refuses bytes that it does not know and that are not 0 */
  a.map_fd = (uint32_t)fd;
  a.key = address(key);
  a.value = address(value);
  a.flags = flags;
  return bpf(command, &a, sizeof a);
}

int usdtkit_map_lookup(int fd, const void *key, void *value) { return map_element(MAP_LOOKUP, fd, key, value, 0); }
int usdtkit_map_update(int fd, const void *key, const void *value) {
  return map_element(MAP_UPDATE, fd, key, value, 0);
}
int usdtkit_map_insert(int fd, const void *key, const void *value) {
  return map_element(MAP_UPDATE, fd, key, value, IF_ABSENT);
}
int usdtkit_map_delete(int fd, const void *key) { return map_element(MAP_DELETE, fd, key, NULL, 0); }
int usdtkit_map_next_key(int fd, const void *key, void *next) { return map_element(MAP_NEXT_KEY, fd, key, next, 0); }

int usdtkit_map_lookup_batch(int fd, int first, void *cursor, void *keys, void *values, uint32_t *count) {
  struct map_batch_attr a = {
      .in_batch = first ? 0 : address(cursor),
      .out_batch = address(cursor),
      .keys = address(keys),
      .values = address(values),
      .count = *count,
      .map_fd = (uint32_t)fd,
  };
  int result = bpf(MAP_LOOKUP_BATCH, &a, sizeof a);
  *count = a.count;
  if (result == 0) return 1;
  return result == -ENOENT ? 0 : result;
}

int usdtkit_map_update_batch(int fd, const void *keys, const void *values, uint32_t count) {
  struct map_batch_attr a = {
      .keys = address(keys), .values = address(values), .count = count, .map_fd = (uint32_t)fd};
  return bpf(MAP_UPDATE_BATCH, &a, sizeof a);
}

int usdtkit_btf_load(const void *data, uint32_t size) {
  struct btf_load_attr a = {.btf = address(data), .btf_size = size};
  return bpf(BTF_LOAD, &a, sizeof a);
}

int usdtkit_prog_load(uint32_t type, const void *instructions, uint32_t count, uint32_t flags, uint32_t expected,
                      uint32_t kernel_type, const usdtkit_functions *functions, const char *name, char *log,
                      uint32_t log_size) {
  struct prog_load_attr a;
  memset(&a, 0, sizeof a); /* the padding too */
  a.prog_type = type;
  a.insn_cnt = count;
  a.prog_flags = flags;
  a.expected_attach_type = expected;
  a.attach_btf_id = kernel_type;
  a.insns = address(instructions);
  a.license = address("GPL"); /* the kernel requires it of a program that reads user memory */
  if (functions) {
    a.prog_btf_fd = (uint32_t)functions->btf;
    a.func_info_rec_size = sizeof *functions->function;
    a.func_info = address(functions->function);
    a.func_info_cnt = functions->count;
  }
  if (log_size) {
    a.log_level = 1;
    a.log_buf = address(log);
    a.log_size = log_size;
  }
  copy_name(a.prog_name, name);
  return bpf_without_signals(PROG_LOAD, &a, sizeof a);
}

int usdtkit_raw_tracepoint_open(int program, const char *name) {
  struct raw_tracepoint_attr a = {.name = address(name), .prog_fd = (uint32_t)program};
  return bpf(RAW_TRACEPOINT_OPEN, &a, sizeof a);
}

int usdtkit_link_uprobe_multi(int program, uint32_t attach_type, const char *path, const uint64_t *offsets,
                              const uint64_t *refs, const uint64_t *cookies, uint32_t count, int on_return, int pid) {
  struct link_uprobe_multi_attr a = {
      .prog_fd = (uint32_t)program, .attach_type = attach_type, .cnt = count, .pid = (uint32_t)pid};
  a.path = address(path);
  a.offsets = address(offsets);
  a.ref_ctr_offsets = address(refs);
  a.cookies = address(cookies);
  a.multi_flags = on_return ? UPROBE_MULTI_RETURN : 0;
  return bpf(LINK_CREATE, &a, sizeof a);
}

int usdtkit_iterator(int program, uint32_t pid) {
  uint32_t info[] = {0, pid, 0}; /* a thread, a process, or its descriptor */
  struct link_iterator_attr a = {.prog_fd = (uint32_t)program, .attach_type = ATTACH_ITERATOR};
  if (pid) {
    a.info = address(info);
    a.info_size = sizeof info;
  }
  int link = bpf(LINK_CREATE, &a, sizeof a);
  if (link < 0) return link;
  struct iterator_attr b = {.link_fd = (uint32_t)link};
  int iterator = bpf(ITER_CREATE, &b, sizeof b);
  close(link); /* the iterator holds it */
  return iterator;
}

int usdtkit_link_next(uint32_t number) {
  struct id_attr a = {.id = number};
  int result = bpf(LINK_NEXT_ID, &a, sizeof a);
  return result < 0 ? result : (int)a.next_id;
}

static int link_info(int link, struct link_info *info) {
  struct info_attr a = {.bpf_fd = (uint32_t)link, .info_len = sizeof *info, .info = address(info)};
  return bpf(OBJECT_INFO, &a, sizeof a);
}

int usdtkit_link_uprobes(uint32_t number, char *path, uint32_t size, uint64_t *offsets, uint32_t *count,
                         uint32_t *pid) {
  struct id_attr a = {.id = number};
  int link = bpf(LINK_BY_ID, &a, sizeof a);
  if (link < 0) return link;
  struct link_info info = {0};
  int result = link_info(link, &info);
  if (result == 0 && info.type == LINK_TYPE_UPROBE_MULTI) {
    info = (struct link_info){.path = address(path), .path_size = size, .offsets = address(offsets), .count = *count};
    result = link_info(link, &info);
    if (result == -ENOSPC) result = 0; /* there are more sites than room */
    *count = info.count;
    *pid = info.pid;
    if (result == 0) result = 1;
  }
  close(link);
  return result;
}

int usdtkit_perf_uprobe_of(int pid, int descriptor, char *path, uint32_t size, uint64_t *offset) {
  struct task_fd_attr a = {.pid = (uint32_t)pid, .fd = (uint32_t)descriptor, .buf_len = size, .buf = address(path)};
  int result = bpf(TASK_FD_QUERY, &a, sizeof a);
  if (result < 0) return result;
  *offset = a.probe_offset;
  return a.fd_type == FD_TYPE_UPROBE || a.fd_type == FD_TYPE_URETPROBE;
}

int usdtkit_perf_uprobe(uint32_t type, uint32_t return_bit, uint32_t ref_shift, const char *path, uint64_t offset,
                        uint64_t ref, int on_return, int pid) {
  struct perf_event_attr a = {.size = sizeof a, .type = type};
  a.config = (on_return ? 1ULL << return_bit : 0) | ref << ref_shift;
  a.config1 = address(path);  /* uprobe_path */
  a.config2 = offset;         /* probe_offset */
  long fd;
  int attempts = 0;
  do { /* a signal may interrupt the wait for a lock of the traced process */
    fd = syscall(SYS_perf_event_open, &a, pid > 0 ? pid : -1, pid > 0 ? -1 : 0, -1, PERF_FLAG_FD_CLOEXEC);
  } while (was_interrupted(fd) && ++attempts < ATTEMPTS);
  return fd < 0 ? -errno : (int)fd;
}

int usdtkit_perf_sample(uint64_t kind, uint64_t frequency, int pid, int cpu) {
  struct perf_event_attr a = {
      .size = sizeof a,
      .type = PERF_TYPE_SOFTWARE,
      .config = kind,
      .freq = 1,
      .sample_freq = frequency,
      .disabled = 1,
      .exclude_kernel = 1,
      .inherit = pid >= 0,
      .inherit_thread = pid >= 0,
  };
  long fd;
  int attempts = 0;
  do {
    fd = syscall(SYS_perf_event_open, &a, pid, cpu, -1, PERF_FLAG_FD_CLOEXEC);
  } while (was_interrupted(fd) && ++attempts < ATTEMPTS);
  return fd < 0 ? -errno : (int)fd;
}

int usdtkit_link_perf(int program, int event, uint64_t cookie) {
  struct link_perf_attr a = {
      .prog_fd = (uint32_t)program, .target_fd = (uint32_t)event, .attach_type = ATTACH_PERF_EVENT, .cookie = cookie};
  return bpf(LINK_CREATE, &a, sizeof a);
}

static int perf_ioctl(int event, unsigned long request, int value) {
  long result;
  int attempts = 0;
  do {
    result = ioctl(event, request, value);
  } while (was_interrupted(result) && ++attempts < ATTEMPTS);
  return result < 0 ? -errno : 0;
}

int usdtkit_perf_set_program(int program, int event) { return perf_ioctl(event, PERF_EVENT_IOC_SET_BPF, program); }
int usdtkit_perf_enable(int event) { return perf_ioctl(event, PERF_EVENT_IOC_ENABLE, 0); }

struct any_handle {
  struct file_handle head;
  uint8_t bytes[MAX_HANDLE_SZ];
};

int usdtkit_file_handle(int file, int *type, uint8_t *handle) {
  struct any_handle result = {.head.handle_bytes = MAX_HANDLE_SZ};
  int mount;
  if (name_to_handle_at(file, "", &result.head, &mount, AT_EMPTY_PATH | HANDLE_TO_COMPARE) < 0) return -errno;
  *type = result.head.handle_type;
  memcpy(handle, result.head.f_handle, result.head.handle_bytes);
  return (int)result.head.handle_bytes;
}

int usdtkit_open_by_handle(int beside, int type, const uint8_t *handle, uint32_t size) {
  struct any_handle copy = {.head.handle_bytes = size, .head.handle_type = type};
  if (size > MAX_HANDLE_SZ) return -EINVAL;
  memcpy(copy.head.f_handle, handle, size);
  int fd = open_by_handle_at(beside, &copy.head, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  return fd < 0 ? -errno : fd;
}

int usdtkit_clone_mount(int file) {
  long fd = syscall(OPEN_TREE, file, "", CLONE_TREE | AT_EMPTY_PATH | O_CLOEXEC);
  return fd < 0 ? -errno : (int)fd;
}

/* A ring buffer is a page with the consumer's position, one with the kernel's, and the data, mapped twice in a row. */
struct usdtkit_ring {
  unsigned long *consumer;
  const unsigned long *producer;
  const uint8_t *data;
  uint64_t size;
  size_t page;
};

int usdtkit_ring_open(int map, uint64_t size, usdtkit_ring **out) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  usdtkit_ring *ring = calloc(1, sizeof *ring);
  if (!ring) return -ENOMEM;
  void *consumer = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, map, 0);
  if (consumer == MAP_FAILED) {
    int error = -errno;
    free(ring);
    return error;
  }
  uint8_t *producer = mmap(NULL, page + 2 * size, PROT_READ, MAP_SHARED, map, (off_t)page);
  if (producer == MAP_FAILED) {
    int error = -errno;
    munmap(consumer, page);
    free(ring);
    return error;
  }
  ring->consumer = consumer;
  ring->producer = (const unsigned long *)producer;
  ring->data = producer + page;
  ring->size = size;
  ring->page = page;
  *out = ring;
  return 0;
}

void usdtkit_ring_close(usdtkit_ring *ring) {
  munmap((void *)(uintptr_t)ring->producer, ring->page + 2 * ring->size);
  munmap(ring->consumer, ring->page);
  free(ring);
}

uint64_t usdtkit_ring_waiting(usdtkit_ring *ring, const void **data) {
  unsigned long position = __atomic_load_n(ring->consumer, __ATOMIC_RELAXED);
  *data = ring->data + (position & (ring->size - 1));
  return __atomic_load_n(ring->producer, __ATOMIC_ACQUIRE) - position;
}

void usdtkit_ring_advance(usdtkit_ring *ring, uint64_t bytes) {
  __atomic_store_n(ring->consumer, *ring->consumer + bytes, __ATOMIC_RELEASE);
}

uint64_t usdtkit_ring_reserved(const usdtkit_ring *ring) { return __atomic_load_n(ring->producer, __ATOMIC_ACQUIRE); }
uint64_t usdtkit_ring_consumed(const usdtkit_ring *ring) { return __atomic_load_n(ring->consumer, __ATOMIC_RELAXED); }

int usdtkit_record_next(const void *data, uint64_t end, uint64_t *at, const uint8_t **payload, uint32_t *length) {
  struct usdtkit_record record;
  int result = usdtkit_next_record(data, end, at, &record);
  if (result > 0) {
    *payload = record.payload;
    *length = record.length;
  }
  return result;
}

int usdtkit_parent_death_signal(int number) { return prctl(PR_SET_PDEATHSIG, number, 0, 0, 0) < 0 ? -errno : 0; }

int usdtkit_drop_privileges(uint32_t uid, uint32_t gid) {
  /* Without CAP_SETPCAP the bounding set cannot be dropped, but with no_new_privs it has no effect. */
  for (int capability = 0; prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; capability++)
    (void)prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
  if (geteuid() == 0 && setgroups(0, NULL)) return -errno;
  if (setresgid(gid, gid, gid) || setresuid(uid, uid, uid)) return -errno;
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};
  if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) || syscall(SYS_capset, &header, none) ||
      prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    return -errno;
  return 0;
}
