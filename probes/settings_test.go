package probes

import (
	"os/exec"
	"testing"
)

// TestTellingMissesNothing: however often the programs are told something, no call goes
// by them, where it is not the kernel's nature.
func TestTellingMissesNothing(t *testing.T) {
	c := start(t, Config{})
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
				c.taps.wake(0, n%2 == 0)
				n++
			}
		}
	}()
	before := missed()
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
	n := missed() - before
	close(stop)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if times := <-told; n > 0 && !misses(c.taps.sockets) {
		t.Errorf("told %d times, and %d calls were missed", times, n)
	}
}
