//! Functions of the forms that Rust's compiler makes: tail calls, drops while unwinding, switches, closures.
use std::panic;

struct Counted<'a>(&'a mut u64);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        *self.0 += 1;
    }
}

#[inline(never)]
pub fn leaf(n: u64) -> u64 {
    n.wrapping_mul(997)
}

#[inline(never)]
pub fn tail(n: u64) -> u64 {
    leaf(n + 1)
}

#[inline(never)]
pub fn panics(n: u64, drops: &mut u64) -> u64 {
    let _counted = Counted(drops);
    if n % 3 == 0 {
        panic!("no");
    }
    leaf(n)
}

#[inline(never)]
pub fn chooses(n: u64, text: &str) -> String {
    match n {
        0 => text.to_string(),
        1 => text.to_uppercase(),
        2 => format!("{}{}", text, n),
        3 => String::new(),
        4 => text.repeat(3),
        5 => text.replace("a", "b"),
        _ => tail(n).to_string(),
    }
}

#[inline(never)]
pub fn releases(block: Box<[u64]>) {
    drop(block)
}

fn main() {
    panic::set_hook(Box::new(|_| {}));
    let mut drops = 0;
    let caught = (0..99).filter(|&n| panic::catch_unwind(panic::AssertUnwindSafe(|| panics(n, &mut drops))).is_err());
    let caught = caught.count();
    for n in 0..9 {
        releases(vec![n; 99].into_boxed_slice());
        print!("{} ", chooses(n, "banana"));
    }
    println!("{} {}", caught, drops);
}
