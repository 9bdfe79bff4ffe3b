package probes

import (
	"bufio"
	"os/exec"
	"strings"
	"testing"

	"github.com/tollwire/tollwire/flow"
)

// TestLate: a connection says late when it was used before the tap, and only then. It stands
// in the file that comes first, so that the sockets are read by each way from here on: to load
// what reads them once more takes seconds in an emulated machine.
func TestLate(t *testing.T) {
	needRoot(t)
	url, _ := server(t, false)
	at := strings.TrimPrefix(url, "http://")
	host, port, _ := strings.Cut(at, ":")
	cmd := exec.Command("python3", "-uc", `
import socket, sys
fresh, used = (socket.create_connection((sys.argv[1], int(sys.argv[2]))) for _ in range(2))
def ask(s, id):
    s.sendall(f"POST /v1/x?id={id} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
    got = b""
    while b"answer to " not in got: got += s.recv(4096) or sys.exit("the server has closed")
ask(used, "before")
print("ready")
sys.stdin.readline()
ask(fresh, "unused-before"); ask(used, "used-before")`, host, port)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	before := func() {
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	if shared == nil {
		before()
	} else if err := shared.turn(byWay, before); err != nil {
		t.Fatal(err)
	}
	c := start(t, Config{})
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	for id, late := range map[string]bool{"unused-before": false, "used-before": true} {
		if w := c.one(flow.Write, "id="+id); w.source != c.taps.sockets || w.late != late {
			t.Errorf("%s: late is %v", id, w.late)
		}
	}
}
