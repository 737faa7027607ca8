/*
 * User stacks: program.py puts this behind the prelude of a program that asks for them, and before it the macros by
 * which it knows the architecture (`Abi.stack_macros` of abi.py).
 *
 * The number of a stack is a hash of the process and of its addresses. Its definition is sent once, when it is first
 * seen.
 *
 * bpf_get_stackid is not used, because its table holds one stack in a bucket and refuses a second: of 1,000 stacks
 * about 30 would be lost. The addresses are not those of the kernel's own walk either. It has one buffer for each
 * CPU, and this program can be preempted while it reads that; and it leaves out the caller while a function has not
 * set up its frame (before Linux 6.11 always, after it where the function begins with neither push nor endbr64). The
 * kernel is asked once for each stack which files its addresses lie in, in case the process ends before anybody has
 * read its memory map.
 */
#define LONGEST_FUNCTION 0x10000

BPF_RINGBUF_OUTPUT(stack_records, 2048); /* in pages: room for 1,600 new stacks at once */
BPF_HASH(stacks_sent, u64, u64, 32768);
BPF_HASH(walks, u64, struct walk, 4096); /* by thread, and whether it is a clock's */
BPF_ARRAY(walk_at_first, struct walk, 1);
BPF_ARRAY(return_instances, struct instances, 1);
BPF_HASH(unwind_processes, u32, struct process_head, 1); /* unwind.c says how large it is, which the loader takes */

/*
 * The return address that a pending return probe has replaced by its trampoline's. Only the kernel knows it, and
 * tells it since Linux 6.10.
 *
 * The kernel's frame `n` is the same as ours, except at a function's entry: there the kernel's walk has the `caller`
 * only where the function begins with endbr64 or push, since Linux 6.11. Where it lacks the caller, its frame 1
 * differs from ours, unless the function calls itself. Then the function's first bytes decide (without the very
 * first, which the breakpoint has replaced), and where they leave a doubt, the trampoline's address remains.
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
 * Reads a frame. Its page is brought in only where a stack can lie. Chains often end at something that is no address,
 * and to find that out by a fault would cost time at every hit.
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

/*
 * Follows the chain of frame pointers, on kernels that cannot walk by tables: returns the hash of the addresses, and
 * writes these to `r` where that is given.
 */
static __always_inline u64 follow_chain(struct pt_regs *ctx, u32 place, struct stack_record *r) {
  u64 hash = bpf_get_current_pid_tgid() >> 32, address = INSTRUCTION(ctx), frame[2] = { FRAME_POINTER(ctx), 0 };
  u64 caller = 0;
  u32 depth = 0;
  /* A stack at a return begins with the caller, also at an exit, where the function has not returned yet. */
  if (place == AT_EXIT) address = return_address(ctx);
#pragma clang loop unroll(disable)
  for (u32 n = 0; n < STACK_DEPTH; n++) {
    hash = (hash ^ address) * 0x9e3779b97f4a7c15ULL;
    hash ^= hash >> 32;
    if (r) r->address[n & STACK_DEPTH] = address;
    depth++;
    if (n == 1) caller = address;
    if (place == AT_ENTRY && n == 0) {
      /* The caller is not in the chain yet: the call has pushed its address, or left it in the link register. */
      address = return_address(ctx);
    } else {
      if (read_frame(ctx, frame)) break;
      address = PLAIN(frame[1]);
    }
    if (!address) break;
    /* The trampoline begins a page. */
    if (!(address & 0xfff)) address = behind_trampoline(ctx, place, n + 1, caller, address);
  }
  if (r) {
    r->depth = depth;
    r->learned = 0;
    r->end = END_CHAIN;
    if (place != AT_RETURN && place != AT_EXIT) r->address[0] |= EXACT;
  }
  return hash | 1;
}

/* The kernel's list of the return probes that are pending in this thread; 0 if there are none, or it cannot be found. */
static __always_inline u64 pending_returns() {
  u32 none = 0;
  u64 probes = 0, first = 0;
  struct instances *known = return_instances.lookup(&none);
  if (!known || !known->next) return 0;
  bpf_probe_read_kernel(&probes, 8, (void *)(bpf_get_current_task() + known->utask));
  if (probes) bpf_probe_read_kernel(&first, 8, (void *)(probes + known->first));
  return first;
}

/* The thread's walk. A clock ticks within other programs of the thread, so it has one to itself. */
static __always_inline struct walk *walk_of_thread(u32 is_clock) {
  u32 none = 0;
  u64 key = (u32)bpf_get_current_pid_tgid() | (u64)is_clock << 32;
  struct walk *found = walks.lookup(&key);
  if (found) return found;
  struct walk *fresh = walk_at_first.lookup(&none);
  if (!fresh) return 0;
  walks.update(&key, fresh);
  return walks.lookup(&key);
}

/*
 * Walks by tables. A process that user space does not know yet has the entry of process 0, by which all of its code is
 * without tables. Returns the hash, 0 where there is no room for another thread.
 */
static __always_inline u64 walk(struct pt_regs *ctx, u32 place, struct stack_record *r) {
  if (!BY_TABLES(0)) return follow_chain(ctx, place, r);
  u32 process = bpf_get_current_pid_tgid() >> 32, nobody = 0;
  struct walking walking = {.walk = walk_of_thread(place == AT_TICK), .record = r};
  struct walk *w = walking.walk;
  if (!w) return 0;
  walking.process = unwind_processes.lookup(&process);
  if (!walking.process) {
    walking.process = unwind_processes.lookup(&nobody);
    if (!walking.process) return 0;
  }
  w->ip = INSTRUCTION(ctx);
  w->first_sp = w->sp = ctx->sp;
  w->fp = FRAME_POINTER(ctx);
  w->exact = place != AT_RETURN;
  w->hash = w->process = process;
  w->place = place;
  w->end = END_DEPTH;
  w->depth = w->mapping = 0;
  w->instance = pending_returns();
  INNERMOST(w, ctx);
  if (place == AT_EXIT) { /* a stack at a return begins with the caller, also where the function has not returned yet */
    w->ip = return_address(ctx);
    w->sp += RETURN_SLOT;
    w->exact = 0;
  }
  bpf_loop(STACK_DEPTH, (void *)CALLBACK(0), &walking, 0);
  w->python.depth = w->python.end = w->python.frame = 0;
  if (walking.process->python) {
    if (walking.process->python >> LANGUAGE_SHIFT == PHP) {
      bpf_loop(1, (void *)CALLBACK(5), &walking, 0);
      if (w->python.frame) bpf_loop(MOST_PYTHON_ROUNDS, (void *)CALLBACK(6), &walking, 0);
    } else if (walking.process->python >> LANGUAGE_SHIFT == RUBY) {
      bpf_loop(1, (void *)CALLBACK(7), &walking, 0);
      if (w->python.frame) bpf_loop(MOST_PYTHON_ROUNDS, (void *)CALLBACK(9), &walking, 0);
    } else {
      bpf_loop(1, (void *)CALLBACK(2), &walking, 0);
      if (w->python.frame) bpf_loop(MOST_PYTHON_ROUNDS, (void *)CALLBACK(4), &walking, 0);
    }
    w->hash ^= (u64)w->python.end << 32;
  }
  if (r) {
    r->depth = w->depth;
    r->end = w->end;
    r->learned = walking.process->learned;
    r->python_depth = w->python.depth;
    r->python_end = w->python.end;
  }
  return w->hash | 1;
}

/* The number of the current stack, or 0 where none can be taken, which `no_stack` counts. */
static __always_inline u64 user_stack(struct pt_regs *ctx, u32 place, u64 *no_stack) {
  if (IS_NARROW(ctx)) { count(no_stack); return 0; } /* a 32-bit process has other frames */
  u64 id = walk(ctx, place, 0), sent = 1;
  if (!id) { count(no_stack); return 0; }
  if (stacks_sent.lookup(&id)) return id;
  struct stack_record *r = stack_records.ringbuf_reserve(sizeof(struct stack_record));
  if (!r) { count(no_stack); return 0; }
  long error = stacks_sent.insert(&id, &sent);
  if (error) { /* the table is full, or another thread was faster */
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
