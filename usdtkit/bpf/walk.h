/*
 * What a walk along a stack keeps from frame to frame: shared by stacks.c, which begins a walk, and unwind.c, which goes
 * on from one frame to its caller. Both are behind the macros of `Abi.stack_macros` of abi.py.
 */
#define STACK_DEPTH 127
#define MOST_PYTHON_ROUNDS 512 /* frames of Python, and of C code between them */
/* Whose frames a process has, by the upper byte of `python` in its head. Its other bits are of that language's text. */
#define LANGUAGE_SHIFT 24
#define LANGUAGE_DETAIL 0xffffff
#define PYTHON 0
#define PHP 1
#define RUBY 2
#define AT_ENTRY 1
#define AT_RETURN 2
#define AT_EXIT 3
#define AT_TICK 4
#define LARGEST_STACK 0x800000

/* Why a walk has ended; `ENDS` of trace/stacks.py has them in words. */
#define END_OUTERMOST 0
#define END_DEPTH 1
#define END_UNREADABLE 2
#define END_UNKNOWN 3    /* in memory that is not known to have code; only user space says so, by UNKNOWN */
#define END_RULE 4       /* at a rule that rows cannot say */
#define END_BACKWARDS 5  /* the caller's frame would not be further up */
#define END_CHAIN 6      /* the chain of frame pointers ends in code without tables */

struct built { s32 status; u8 id[20]; u64 offset; };
struct python_frame { u64 code, at; };
/* Where an address is that of an instruction that was interrupted, and not one that a call returns to, EXACT is set. */
#define EXACT (1ULL << 63)
/* Where an address lies in no mapping that is known, and the walk has followed the frame pointer, UNKNOWN is set. */
#define UNKNOWN (1ULL << 62)
struct stack_record {
  u64 id;
  u32 pid, depth, place;
  s32 built_size;
  u32 learned, end, python_depth, python_end;
  u64 address[STACK_DEPTH + 1];
  struct built built[64];
  struct python_frame python[STACK_DEPTH + 1];
};

/*
 * What is known of a process as a whole. `count` of its mappings follow. `learned` is the process whose mappings they
 * are: this one, or the one from which it was forked.
 */
struct process_head { u32 count, python; u64 runtime; u32 learned; };

/*
 * A walk along Python's frames, or those of another language: the one that was reached; the thread's state and
 * interpreter, while they are searched for; and what was read last.
 */
struct python_walk {
  u64 frame, self, interpreter, state;
  u64 word[16], pointer[4];
  u32 depth, end;
};

/*
 * A walk in progress: the frame that was reached. `exact` is 1 where `ip` is the address of an instruction, 0 where it is
 * where a call returns to. Of all but the innermost frame, rax, r10 and r11 are not known.
 *
 * Each thread has one in a map, and none in the stack of the program, which has 512 bytes with all that it calls.
 */
struct walk {
  u64 ip, sp, fp, lr, exact, hash, first_sp, mapping, instance;
  u64 rax, r10, r11;
  u64 frame, address; /* the caller's, while they are searched for */
  u32 depth, place, end, process;
  struct python_walk python;
};

/* What the functions are given that the kernel calls. `record` is 0 where only the hash is wanted. */
struct walking {
  struct walk *walk;
  struct process_head *process; /* struct process of unwind.c begins with it */
  struct stack_record *record;
};

/* Where the kernel's structures have what a pending return probe keeps; all 0 where that is not known. */
struct instances { u64 utask, first, stack, address, next; };
