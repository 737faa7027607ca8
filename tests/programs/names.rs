//! Functions of every form that a name in Rust has: methods, generic ones, those of traits, closures, other alphabets.
use std::fmt::Debug;

/// The value, of which the compiler knows nothing more. The standard library's is too new for Debian 12.
#[inline(always)]
fn black_box<T>(value: T) -> T {
    let kept = std::mem::ManuallyDrop::new(value);
    unsafe { std::ptr::read_volatile(&*kept) }
}

pub trait Sell {
    fn sell(&self, n: u32) -> u32;
    fn twice(&self, n: u32) -> u32 {
        self.sell(n) * 2
    }
}

pub struct Shop {
    n: u32,
}

impl Sell for Shop {
    #[inline(never)]
    fn sell(&self, n: u32) -> u32 {
        black_box(self.n * 3 + n)
    }
}

impl Sell for u32 {
    #[inline(never)]
    fn sell(&self, n: u32) -> u32 {
        black_box(self + n)
    }
}

impl<T: Debug> Sell for [T] {
    #[inline(never)]
    fn sell(&self, n: u32) -> u32 {
        black_box(self.len() as u32 + n)
    }
}

impl Shop {
    #[inline(never)]
    pub fn new(n: u32) -> Shop {
        Shop { n: black_box(n) }
    }
}

mod depth {
    use super::black_box;

    pub trait Deep {
        fn deep(&self) -> usize;
    }

    impl<T> Deep for Vec<T> {
        #[inline(never)]
        fn deep(&self) -> usize {
            black_box(self.len())
        }
    }

    impl super::Shop {
        #[inline(never)]
        pub fn inner(&self) -> u32 {
            black_box(self.n)
        }
    }
}
use depth::Deep;

#[inline(never)]
pub fn double<T: std::ops::Add<Output = T> + Copy>(n: T) -> T {
    black_box(n + n)
}

#[inline(never)]
pub fn apply(f: &dyn Fn(u32) -> u32, n: u32) -> u32 {
    black_box(f(n))
}

#[inline(never)]
pub fn größe(n: u32) -> u32 {
    black_box(n)
}

fn main() {
    let shop = Shop::new(3);
    let n = std::env::args().count() as u32;
    let closure = move |k| black_box(k + n);
    let sellers: Vec<&dyn Sell> = vec![&shop, &7u32];
    let mut total: u32 = sellers.iter().map(|s| s.twice(2)).sum();
    total += double(2u32) + double(3u64) as u32 + apply(&closure, 3) + [1u8][..].sell(3);
    println!("{} {} {} {}", total, vec![1u8].deep(), shop.inner(), größe(2));
}
