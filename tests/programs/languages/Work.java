// 997 calls of branch and of leaf, 97 orders made, 31 threads, 13 collections; then it says done and waits.
import java.io.*;
public class Work {
    static long sum;
    static class Order { long a; Order(long n) { a = n; } }
    static void leaf(int n) { sum += n; }
    static void branch(int n) { leaf(n); }
    public static void main(String[] args) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        System.out.println("ready"); System.out.flush();
        in.readLine();
        for (int i = 0; i < 997; i++) branch(i);
        for (int i = 0; i < 97; i++) sum += new Order(i).a;
        Thread[] t = new Thread[31];
        for (int i = 0; i < 31; i++) { t[i] = new Thread(() -> sum++, "worker-" + i); t[i].start(); }
        for (Thread x : t) x.join();
        for (int i = 0; i < 13; i++) System.gc();
        System.out.println("done"); System.out.flush();
        in.readLine();
    }
}
