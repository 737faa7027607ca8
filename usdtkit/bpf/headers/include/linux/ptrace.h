#ifndef USDTKIT_PTRACE_H
#define USDTKIT_PTRACE_H

#include <linux/types.h>

/* The registers of the probed thread, in the order of the kernel's ABI for BPF programs. */
#if defined(__x86_64__) || defined(__TARGET_ARCH_x86)
struct pt_regs {
  unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8;
  unsigned long ax, cx, dx, si, di, orig_ax;
  unsigned long ip, cs, flags, sp, ss;
};
#elif defined(__aarch64__) || defined(__TARGET_ARCH_arm64)
struct user_pt_regs {
  __u64 regs[31];
  __u64 sp;
  __u64 pc;
  __u64 pstate;
};
struct pt_regs {
  union {
    struct user_pt_regs user_regs;
    struct {
      __u64 regs[31];
      __u64 sp;
      __u64 pc;
      __u64 pstate;
    };
  };
};
#else
#error "usdtkit has no registers for this architecture yet"
#endif

#endif
