/* Words that one function is given and that another asks about: say(word), then again(), for each of several words. */
#include "program.h"

NOINLINE void say(const char *word) { __asm__ volatile("" : : "r"(word) : "memory"); }

NOINLINE void again(void) { __asm__ volatile("" : : : "memory"); }

int main(void)
{
    static const char *words[] = {"short", "12345678", "123456789", 0, ""};

    await_go();
    again();
    for (int i = 0; i < 5; i++) {
        say(words[i]);
        again();
    }
    return 0;
}
