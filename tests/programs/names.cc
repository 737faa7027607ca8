/* Functions of every form that a name in C++ has: global, overloaded, in templates, operators, lambdas, destructors. */
#include <cstdio>
#include <functional>
#include <string>
#include <vector>
#define KEPT __attribute__((noinline, noclone, used))
KEPT int mysql_parse(void *thd, char *text, unsigned length) { return text[length] + !thd; }
KEPT void freefn(void *p) { __asm__ volatile("" : : "r"(p)); }
KEPT int twice(int n) { __asm__ volatile("" : "+r"(n)); return 2 * n; }
KEPT int twice(const std::string &s) { return 2 * s.size(); }
KEPT static int hidden(int n) { __asm__ volatile("" : "+r"(n)); return n; }
extern "C" KEPT int plain(int n) { __asm__ volatile("" : "+r"(n)); return n; }
KEPT int plain(long n) { __asm__ volatile("" : "+r"(n)); return n; }
template <class T> KEPT T thrice(T n) { __asm__ volatile("" : "+r"(n)); return 3 * n; }
template <class T> KEPT decltype(auto) same(T n) { __asm__ volatile("" : "+r"(n)); return n; }
template <int N> KEPT int (*chosen(int n))(int) { return n > N ? static_cast<int (*)(int)>(plain) : hidden; }
namespace shop {
struct Cart {
    int n = 0;
    KEPT Cart() { __asm__ volatile(""); }
    KEPT virtual ~Cart() { __asm__ volatile(""); }
    KEPT int add(int price) { return n += price; }
    KEPT int add(const std::string &name, std::vector<int> *prices) const { return name.size() + prices->size(); }
    KEPT bool operator()(int k) { return k > n; }
    KEPT Cart &operator+=(int k) { n += k; return *this; }
    KEPT bool operator<(const Cart &other) const { return n < other.n; }
    KEPT int *operator->() { return &n; }
    KEPT operator std::function<int(int)>() { return [this](int k) { return n + k; }; }
    KEPT void *operator new(std::size_t size) { return ::operator new(size); }
};
namespace { KEPT int inner(int n) { __asm__ volatile("" : "+r"(n)); return n; } }
template <class T> struct Box { T value; template <class U> KEPT U put(U u) { __asm__ volatile(""); return u; } };
}
KEPT long operator"" _km(unsigned long long n) { return n * 1000; }
int main(int count, char **arguments)
{
    auto first = [&](int n) KEPT { return n + count; };
    auto second = [&](int n) KEPT { return n - count; };
    auto generic = [](auto n) KEPT { return n + 1; };
    auto *cart = new shop::Cart;
    std::vector<int> v{1};
    shop::Box<std::vector<int>> box{v};
    std::function<int(int)> f = *cart;
    box.put<long>(7); box.put<std::string>("a");
    *cart += 3;
    int total = mysql_parse(cart, arguments[0], 0) + twice(1) + twice("a") + hidden(2) + plain(3) + plain(4L) + thrice(1) + thrice(2L)
        + same(3) + chosen<4>(count)(5) + cart->add(1) + cart->add("a", &v) + (*cart)(1) + (*cart < *cart) + *cart->operator->()
        + shop::inner(3) + first(1) + second(2) + generic(1) + generic(2L) + f(3) + 3_km;
    freefn(nullptr);
    delete cart;
    return total == 997;
}
