/*
 * User stacks: program.py puts this behind the prelude of a program that asks for them, and before it the macros by
 * which it knows the architecture (`Machine.stack_macros` of abi.py).
 *
 * A stack is known by a hash of the process and its addresses, and its definition is sent once, when it is first seen.
 * Not by bpf_get_stackid: a table of that kind holds one stack a bucket and refuses the second, so of 1,000 stacks some
 * 30 would be lost. Nor are the addresses those of the kernel's walk: its buffers are one a CPU, and this program may be
 * preempted while it reads them; and it leaves out the caller where the frame is not set up yet (before Linux 6.11, and
 * after it where a function begins with neither push nor endbr64). What only the kernel knows, which file an address
 * lies in, is asked of it once a stack, for the case that the process ends before anybody has read its memory map.
 */
#define STACK_DEPTH 127
#define BUILT_DEPTH 64
#define AT_ENTRY 1
#define AT_RETURN 2
#define AT_EXIT 3
#define LONGEST_FUNCTION 0x10000
#define LARGEST_STACK 0x800000

struct built { s32 status; u8 id[20]; u64 offset; };
struct stack_record {
  u64 id;
  u32 pid, depth, place;
  s32 built_size;
  u64 address[STACK_DEPTH + 1];
  struct built built[BUILT_DEPTH];
};

BPF_RINGBUF_OUTPUT(stack_records, 2048); /* pages: a burst of 2,700 new stacks */
BPF_HASH(stacks_sent, u64, u64, 32768);

/*
 * The address that a pending return probe has put its trampoline's in place of: only the kernel knows, and says since
 * Linux 6.10. Our frame `n` is its own; but at a function's entry its walk has the `caller` only where the function
 * begins with endbr64 or push, since Linux 6.11. Where it has not, its frame 1 is another, or in a function that calls
 * itself the same: there the first bytes decide, behind the breakpoint that is in place of the very first, and where they
 * leave a doubt the trampoline remains.
 */
static __always_inline u64 behind_trampoline(struct pt_regs *ctx, u32 place, u32 n, u64 caller, u64 address) {
  u64 first = 0, found = 0;
  if (place == AT_ENTRY) {
    if (n < 2 || bpf_get_stack(ctx, &first, sizeof(first), BPF_F_USER_STACK | 1) != sizeof(first)) return address;
    if (first != caller) {
      n--;
    } else if (caller - INSTRUCTION(ctx) < LONGEST_FUNCTION) {
      u32 bytes = 0;
      bpf_probe_read_user(&bytes, 4, (void *)INSTRUCTION(ctx));
      bytes >>= 8;
      if (bytes != 0xfa1e0f /* endbr64 */ && bytes != 0xe58948 /* push %rbp; mov %rsp,%rbp */) return address;
    }
  }
  long size = bpf_get_stack(ctx, &found, sizeof(found), BPF_F_USER_STACK | (n & BPF_F_SKIP_FIELD_MASK));
  return size == sizeof(found) && found ? found : address;
}

/*
 * A frame that lies where a stack lies is read as prelude.c reads everything; a chain ends anywhere else, often enough at
 * an address that is none, and the fault that would find that out is not for every hit.
 */
static __always_inline long read_frame(struct pt_regs *ctx, u64 frame[2]) {
  u64 address = frame[0];
  long error = bpf_probe_read_user(frame, 16, (void *)address);
  if (error && address - ctx->sp < LARGEST_STACK && !bring_in(address, 16))
    error = bpf_probe_read_user(frame, 16, (void *)address);
  return error;
}

static __always_inline u64 return_address(struct pt_regs *ctx) {
#ifdef LINK_REGISTER
  return PLAIN(LINK_REGISTER(ctx));
#else
  u64 address = 0;
  if (bpf_probe_read_user(&address, 8, (void *)ctx->sp)) address = 0;
  return address;
#endif
}

/* Follows the chain of frames; the hash of what it finds, and the addresses themselves to `r` where that is given. */
static __always_inline u64 walk(struct pt_regs *ctx, u32 place, struct stack_record *r) {
  u64 hash = bpf_get_current_pid_tgid() >> 32, address = INSTRUCTION(ctx), frame[2] = { FRAME_POINTER(ctx), 0 };
  u64 caller = 0;
  u32 depth = 0;
  /* A stack at a return begins with the caller, also where its function is about to return. */
  if (place == AT_EXIT) address = return_address(ctx);
#pragma clang loop unroll(disable)
  for (u32 n = 0; n < STACK_DEPTH; n++) {
    hash = (hash ^ address) * 0x9e3779b97f4a7c15ULL;
    hash ^= hash >> 32;
    if (r) r->address[n & STACK_DEPTH] = address;
    depth++;
    if (n == 1) caller = address;
    if (place == AT_ENTRY && n == 0) {
      /* The caller is not in the chain yet: the call has pushed it, or left it in the link register. */
      address = return_address(ctx);
    } else {
      if (read_frame(ctx, frame)) break;
      address = PLAIN(frame[1]);
    }
    if (!address) break;
    if (!(address & 0xfff)) address = behind_trampoline(ctx, place, n + 1, caller, address); /* it begins a page */
  }
  if (r) r->depth = depth;
  return hash | 1;
}

/* The id of the current stack; 0 where there is none to be had, which `no_stack` counts. */
static __always_inline u64 user_stack(struct pt_regs *ctx, u32 place, u64 *no_stack) {
  if (IS_NARROW(ctx)) { count(no_stack); return 0; } /* a 32-bit process has other frames */
  u64 id = walk(ctx, place, 0), sent = 1;
  if (stacks_sent.lookup(&id)) return id;
  struct stack_record *r = stack_records.ringbuf_reserve(sizeof(struct stack_record));
  if (!r) { count(no_stack); return 0; }
  long error = stacks_sent.insert(&id, &sent);
  if (error) { /* full, or another thread was quicker */
    stack_records.ringbuf_discard(r, 0);
    if (error == -17) return id;
    count(no_stack);
    return 0;
  }
  r->id = id;
  r->pid = bpf_get_current_pid_tgid() >> 32;
  r->place = place;
  walk(ctx, place, r);
  r->built_size = bpf_get_stack(ctx, r->built, sizeof(r->built), BPF_F_USER_STACK | BPF_F_USER_BUILD_ID);
  stack_records.ringbuf_submit(r, 0);
  return id;
}
