/*
 * The beginning of every program: program.py puts a session's records, maps and hooks behind it.
 *
 * A program can be preempted, and another thread can run it on the same CPU meanwhile. Therefore even per-CPU
 * counters are added to atomically.
 */
#include <uapi/linux/ptrace.h>
/* What the loader fills in: a parameter, a function that the kernel calls, and whether stacks are walked by tables. */
#define FILLED(kind, n) ({ u64 p; asm volatile("%0 = %1 ll" : "=r"(p) : "i"(0x ## kind ## 00000000ULL | (n))); p; })
#define PARAMETER(n) FILLED(75736474, n)
#define CALLBACK(n) FILLED(75736475, n)
#define BY_TABLES(n) FILLED(75736476, n)

/* Of the ring of events. bcc has no method for it, so the map is given by its number: it is the first of all maps. */
#define EVENTS_QUERY(what) bpf_ringbuf_query((void *)bpf_pseudo_fd(1, -1), what)

struct pair_key { u64 thread, depth; };
struct call_key { u64 owner, frame; };
struct go_call_key { u64 owner, frame, routine; };
struct process_key { u64 process, since, value; };
struct process { u64 since; s64 open; };
struct counters { u64 n[8]; }; /* of one hook, looked up once for each hit */
struct operand { s64 value; s16 base, index; u8 scale, memory, size, is_signed; };

BPF_RINGBUF_OUTPUT(events, 64);
BPF_PERCPU_ARRAY(stats, struct counters, 1);
BPF_ARRAY(operands, struct operand, 1);
BPF_HASH(origins, u64, u64, 1); /* the keys are the files and processes from which hits came */

static __always_inline void count(u64 *counter) { __sync_fetch_and_add(counter, 1); }

/*
 * The flags for the submission of a record of this many bytes. The kernel wakes a reader that has read everything
 * before. One that lets events gather is also woken each time that another sixteenth of the ring is filled: then the
 * numbers of waiting bytes without and with this record differ in a bit that counts sixteenths.
 */
static __always_inline u64 wake_up(u64 size) {
  u64 waiting = EVENTS_QUERY(0 /* BPF_RB_AVAIL_DATA */), part = EVENTS_QUERY(1 /* BPF_RB_RING_SIZE */) >> 4;
  return (waiting ^ (waiting - size)) < part ? 0 : 2; /* BPF_RB_FORCE_WAKEUP */
}

#define NO_TEXT (-1) /* the length of a text whose pointer is NULL; what could not be read has the kernel's error */

/* The upper half of the cookie is the number of the file, that of the id is the process. */
static __always_inline void note_origin(u64 cookie, u64 id) {
  u64 key = (cookie >> 32 << 32) | id >> 32, once = 1;
  if (!origins.lookup(&key)) origins.update(&key, &once);
}

/* Passes on what a read has returned, and counts an error. */
static __always_inline long counted(long result, u64 *unreadable) {
  if (result < NO_TEXT) count(unreadable);
  return result;
}

/*
 * The memory of the process. bpf_probe_read_user does not see a page that the process has not touched since its
 * start, such as one of constants. Then the page is brought in, and read a second time. A read spans two pages at
 * most.
 */
static __always_inline int bring_in(u64 address, u64 size) {
  char byte;
  u64 last = address + size - 1;
  if (bpf_copy_from_user(&byte, 1, (void *)address)) return -1;
  if ((address ^ last) & ~4095ULL) bpf_copy_from_user(&byte, 1, (void *)(last & ~4095ULL));
  return 0;
}

static __always_inline long read_string(void *into, u32 room, u64 address) {
  if (!address) return NO_TEXT;
  long length = bpf_probe_read_user_str(into, room, (void *)address);
  if (length < 0 && !bring_in(address, room)) length = bpf_probe_read_user_str(into, room, (void *)address);
  return length;
}

static __always_inline u64 read_user(u64 address, u32 size, u64 *unreadable) {
  u64 value = 0;
  long error = bpf_probe_read_user(&value, size, (void *)address);
  if (error && !bring_in(address, size)) error = bpf_probe_read_user(&value, size, (void *)address);
  if (error) count(unreadable);
  return value;
}

/* Stands for a value that is not known at this place. */
static __always_inline u64 missing(u64 *unreadable) {
  count(unreadable);
  return 0;
}

/*
 * Whether two return addresses belong to two calls. Any tracer may since have replaced the second one by the
 * trampoline of a return probe, which begins a page.
 */
static __always_inline int is_another(u64 entered, u64 now) { return entered != now && now & 4095; }

/* Whether x86 takes a conditional jump, by the flags and the four bits of the opcode that name the condition. */
static __always_inline u64 is_taken(u64 flags, u32 condition) {
  u64 carry = flags & 1, parity = flags >> 2 & 1, zero = flags >> 6 & 1, sign = flags >> 7 & 1;
  u64 overflow = flags >> 11 & 1, holds = 0;
  switch (condition >> 1) {
  case 0: holds = overflow; break;
  case 1: holds = carry; break;
  case 2: holds = zero; break;
  case 3: holds = carry | zero; break;
  case 4: holds = sign; break;
  case 5: holds = parity; break;
  case 6: holds = sign ^ overflow; break;
  default: holds = zero | (sign ^ overflow);
  }
  return holds ^ (condition & 1); /* the lowest bit negates it */
}

static __always_inline s32 at_most(u64 length, u32 most) { return length < most ? (s32)length : (s32)most; }

static __always_inline s32 read_buffer(void *into, u64 room, u64 address, u64 length) {
  if (!address) return NO_TEXT;
  u64 part = length < room ? length : room;
  asm volatile("" : "+r"(part)); /* keeps the compiler from removing the next line, which the verifier needs */
  if (part > room) return NO_TEXT; /* it never is */
  long error = bpf_probe_read_user(into, part, (void *)address);
  if (error && !bring_in(address, part)) error = bpf_probe_read_user(into, part, (void *)address);
  return error ? error : length > 0x7fffffff ? 0x7fffffff : (s32)length;
}

static __always_inline u64 usdt_operand(struct pt_regs *ctx, u32 at, u64 *unreadable) {
  struct operand *o = operands.lookup(&at);
  if (!o) return 0;
  u64 value = o->value, part = 0;
  if (o->base >= 0 && !bpf_probe_read_kernel(&part, sizeof(part), (void *)ctx + o->base)) value += part;
  if (o->index >= 0 && !bpf_probe_read_kernel(&part, sizeof(part), (void *)ctx + o->index)) value += part * o->scale;
  u32 size = o->size & 15;
  if (size > 8) return 0;
  if (o->memory) value = read_user(value, size, unreadable);
  u32 shift = (64 - 8 * size) & 63;
  value <<= shift;
  return o->is_signed ? (u64)((s64)value >> shift) : value >> shift;
}

/* Python's // and %: they round down, and the remainder has the divisor's sign. By 0 they do what BPF does unsigned. */
static __always_inline s64 signed_divide(s64 a, s64 b) {
  u64 x = a < 0 ? -(u64)a : a, y = b < 0 ? -(u64)b : b;
  if (!b) return 0;
  return (a < 0) == (b < 0) ? x / y : -(x / y + (x % y != 0));
}

static __always_inline s64 signed_modulo(s64 a, s64 b) { return (u64)a - (u64)signed_divide(a, b) * (u64)b; }

static __always_inline s32 order(s64 a, u64 b) { return a < 0 || (u64)a < b ? -1 : (u64)a > b; }

static __always_inline u32 bits(u64 value) {
  u32 n = 0;
  if (value >> 32) { n += 32; value >>= 32; }
  if (value >> 16) { n += 16; value >>= 16; }
  if (value >> 8) { n += 8; value >>= 8; }
  if (value >> 4) { n += 4; value >>= 4; }
  if (value >> 2) { n += 2; value >>= 2; }
  if (value >> 1) { n += 1; value >>= 1; }
  return n + (u32)value;
}

/* Buckets as `actions.Logarithmic` describes them, of which the first is for values below 0. */
static __always_inline u32 logarithmic(u64 value, u32 precision) {
  u32 top = bits(value);
  if (top <= precision) return (u32)value + 1;
  u32 shift = top - precision - 1;
  return (shift << precision) + (u32)(value >> shift) + 1;
}

static __always_inline u32 linear(s64 value, s64 low, u64 step, u32 steps) {
  if (value < low) return 0;
  u64 at = (u64)(value - low) / step;
  return at < steps ? (u32)at + 1 : steps + 1;
}

/* The bits of a float → the bits of the double with the same value. */
static __always_inline u64 widen(u32 value) {
  u64 sign = (u64)(value >> 31) << 63, fraction = value & 0x7fffff;
  u32 exponent = value >> 23 & 0xff, top = bits(fraction);
  if (exponent == 0xff) return sign | 0x7ffULL << 52 | fraction << 29;
  if (exponent) return sign | (u64)(exponent + 1023 - 127) << 52 | fraction << 29;
  if (!fraction) return sign;
  return sign | (u64)(top + 1023 - 150) << 52 | (fraction << (53 - top & 63) & 0xfffffffffffffULL);
}
