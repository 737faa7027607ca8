/*
 * Stops a child of ours by a signal, where it begins a program and at sites in its files: trace/stops.py compiles this,
 * and lets the child go on.
 */
#include <uapi/linux/ptrace.h>

#define SIGCONT 18
#define SIGSTOP 19
#define SIGACTION_SIZE 32 /* in the kernel, where the handler comes first */

/* `stops`: how often it was stopped. The last three say where the kernel has signals, and are 0 if that is unknown. */
struct child { u64 pid, stops, sighand, action, blocked; };
BPF_ARRAY(child, struct child, 1);

static __always_inline int stop(struct child *c) {
  u64 task = bpf_get_current_task(), sighand = 0, handler = 0, blocked = 0;
  if (c->action) { /* who waits for SIGCONT would take notice of ours */
    bpf_probe_read_kernel(&sighand, 8, (void *)(task + c->sighand));
    bpf_probe_read_kernel(&handler, 8, (void *)(sighand + c->action + (SIGCONT - 1) * SIGACTION_SIZE));
    bpf_probe_read_kernel(&blocked, 8, (void *)(task + c->blocked));
    if (handler > 1 /* SIG_IGN */ || blocked & 1 << (SIGCONT - 1)) return 0;
  }
  __sync_fetch_and_add(&c->stops, 1);
  bpf_send_signal(SIGSTOP);
  return 0;
}

int stop_at_exec(struct bpf_raw_tracepoint_args *ctx) {
  u32 none = 0;
  struct child *c = child.lookup(&none);
  if (!c || bpf_get_current_pid_tgid() >> 32 != c->pid) return 0;
  return stop(c);
}

/* The cookie of a site is how far behind it a number of 4 bytes lies which is 0 where the child has to stop, or 0. */
int stop_at_site(struct pt_regs *ctx) {
  u32 none = 0, state = 0, distance = bpf_get_attach_cookie(ctx);
  struct child *c = child.lookup(&none);
  if (!c) return 0;
  if (distance && !bpf_probe_read_user(&state, 4, (void *)(INSTRUCTION(ctx) + distance)) && state) return 0;
  return stop(c);
}
