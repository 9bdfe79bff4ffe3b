package probes

import (
	"os/exec"
	"testing"
)

// TestTellingMissesNothing: however often the programs are told something, no more calls go
// by them than do by chance, where it is not the kernel's nature.
func TestTellingMissesNothing(t *testing.T) {
	c := start(t, Config{})
	if c.taps.Shards() == maxShards {
		t.Fatal("there is no shard without a reader")
	}
	before := counted()
	told := make(chan int)
	stop := make(chan struct{})
	go func() {
		n := 0
		for {
			select {
			case <-stop:
				told <- n
				return
			default:
				c.taps.wake(maxShards-1, n%2 == 0) // which nobody reads
				n++
			}
		}
	}()
	out, err := exec.Command("python3", "-c", `
import socket, threading
def turns():
    with socket.create_server(("127.0.0.1", 0)) as l, socket.create_connection(l.getsockname()) as a, l.accept()[0] as b:
        for _ in range(3000):
            a.send(b"x" * 100)
            b.recv(100)
threads = [threading.Thread(target=turns) for _ in range(4)]
for t in threads: t.start()
for t in threads: t.join()
`).CombinedOutput()
	close(stop)
	times := <-told
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	n, calls := missedSince(before)
	if calls < 20_000 || times < 1000 || n > mayMiss(c.taps.sockets, calls) {
		t.Errorf("%d calls were seen, and %d missed, while the programs were told %d times", calls, n, times)
	}
}
