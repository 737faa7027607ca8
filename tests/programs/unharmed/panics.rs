//! Panics that pass through functions. The manners are those of case.h.
use std::any::Any;
use std::os::raw::{c_int, c_void};
use std::panic::{catch_unwind, resume_unwind, set_hook, AssertUnwindSafe};
use std::process::exit;
use std::sync::atomic::{AtomicI64, AtomicBool, Ordering::Relaxed};
use std::thread;

extern "C" {
    fn read(from: c_int, into: *mut c_void, length: usize) -> isize;
    fn write(to: c_int, from: *const c_void, length: usize) -> isize;
}

fn say(text: &str) {
    let written = unsafe { write(1, text.as_ptr() as *const c_void, text.len()) };
    assert!(written == text.len() as isize);
}

fn await_line() {
    let mut c = 0u8;
    while unsafe { read(0, &mut c as *mut u8 as *mut c_void, 1) } != 0 && c != b'\n' {}
}

fn pause_inside() {
    static PAUSED: AtomicBool = AtomicBool::new(false);
    if !PAUSED.swap(true, Relaxed) {
        say("inside\n");
        await_line();
    }
}

/// Keeps the compiler from knowing a value: what std has for that is too new for Debian's.
fn black_box(value: i64) -> i64 {
    unsafe { std::ptr::read_volatile(&value) }
}

struct Calls(&'static str, AtomicI64, AtomicI64);
impl Calls {
    const fn of(name: &'static str) -> Calls {
        Calls(name, AtomicI64::new(0), AtomicI64::new(0))
    }
    fn enter(&self) {
        self.1.fetch_add(1, Relaxed);
    }
    fn leave(&self) {
        self.2.fetch_add(1, Relaxed);
    }
    fn tell(&self) {
        say(&format!("calls {} {} {}\n", self.0, self.1.load(Relaxed), self.2.load(Relaxed)));
    }
}

static DROPPED: AtomicI64 = AtomicI64::new(0);
struct Guard;
impl Drop for Guard {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, Relaxed);
    }
}

static INNER: Calls = Calls::of("inner");
#[no_mangle]
#[inline(never)]
pub fn inner(n: i64) -> i64 {
    INNER.enter();
    if n == 1 {
        pause_inside();
    }
    if n % 2 == 1 {
        panic!("odd {}", n);
    }
    INNER.leave();
    black_box(n)
}

static MIDDLE: Calls = Calls::of("middle");
#[no_mangle]
#[inline(never)]
pub fn middle(n: i64) -> i64 {
    MIDDLE.enter();
    let _guard = Guard;
    let result = black_box(inner(n)) + 1;
    MIDDLE.leave();
    result
}

fn what(thrown: Box<dyn Any + Send>) -> String {
    thrown.downcast_ref::<String>().cloned().unwrap_or_default()
}

fn caught() {
    for n in 0..4 {
        match catch_unwind(|| middle(n)) {
            Ok(value) => say(&format!("{}\n", value)),
            Err(thrown) => say(&format!("caught {}\n", what(thrown))),
        }
    }
    let left = (0..100).filter(|&n| catch_unwind(|| middle(n)).is_err()).count();
    say(&format!("left {}, dropped {}\n", left, DROPPED.load(Relaxed)));
    MIDDLE.tell();
    INNER.tell();
}

static AGAIN: Calls = Calls::of("again");
#[no_mangle]
#[inline(never)]
pub fn again(n: i64) -> i64 {
    AGAIN.enter();
    let result = match catch_unwind(|| middle(n)) {
        Ok(value) => value,
        Err(thrown) if n % 4 == 1 => resume_unwind(thrown),
        Err(_) => -n,
    };
    AGAIN.leave();
    black_box(result)
}

fn resumed() {
    let mut sum = 0;
    for n in 0..48 {
        sum += catch_unwind(|| again(n)).unwrap_or(-1000);
    }
    say(&format!("sum {}, dropped {}\n", sum, DROPPED.load(Relaxed)));
    AGAIN.tell();
    MIDDLE.tell();
}

/// Further down than the 64 pending returns that the kernel keeps of a thread.
static DOWN: Calls = Calls::of("down");
#[no_mangle]
#[inline(never)]
pub fn down(levels: i64) -> i64 {
    DOWN.enter();
    let _guard = Guard;
    let result = if levels > 0 { down(levels - 1) + 1 } else { inner(black_box(1)) };
    DOWN.leave();
    black_box(result)
}

fn deep() {
    let caught = (0..31).filter(|_| catch_unwind(|| down(199)).is_err()).count();
    say(&format!("caught {}, dropped {}\n", caught, DROPPED.load(Relaxed)));
    DOWN.tell();
}

/// A panic that is caught before it leaves a destructor. While another unwinds, older versions of Rust abort at once.
struct Careful;
impl Drop for Careful {
    fn drop(&mut self) {
        if !thread::panicking() {
            let _ = catch_unwind(|| middle(3));
        }
    }
}

static HOLDS: Calls = Calls::of("holds");
#[no_mangle]
#[inline(never)]
pub fn holds(n: i64) -> i64 {
    HOLDS.enter();
    let _careful = Careful;
    let result = middle(n);
    HOLDS.leave();
    black_box(result)
}

fn dropping() {
    let left = (0..31).filter(|&n| catch_unwind(|| holds(n)).is_err()).count();
    say(&format!("left {}, dropped {}\n", left, DROPPED.load(Relaxed)));
    HOLDS.tell();
    MIDDLE.tell();
}

fn threads() {
    let all: Vec<_> = (0..8)
        .map(|_| {
            thread::spawn(|| {
                let left = (2..300).filter(|&n| catch_unwind(|| middle(n)).is_err()).count();
                middle(2 * left as i64 + 1)
            })
        })
        .collect();
    let mut ended = catch_unwind(|| middle(1)).is_err() as i64;
    for each in all {
        ended += each.join().map_err(|thrown| what(thrown) == "odd 299").unwrap_err() as i64;
    }
    say(&format!("ended {}, dropped {}\n", ended, DROPPED.load(Relaxed)));
    MIDDLE.tell();
    INNER.tell();
}

fn uncaught() {
    say("traces middle\ntraces inner\n");
    middle(1);
}

fn main() {
    let cases: [(&str, fn()); 6] = [
        ("caught", caught), ("resumed", resumed), ("deep", deep), ("dropping", dropping), ("threads", threads),
        ("uncaught", uncaught),
    ];
    let name = std::env::args().nth(1).unwrap_or_default();
    for (each, run) in cases.iter() {
        if *each == name {
            set_hook(Box::new(|_| {})); // what it would print has the thread's number in it
            say("ready\n");
            await_line();
            AssertUnwindSafe(run)();
            say("done\n");
            exit(42);
        }
    }
    exit(96);
}
