package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"net/url"
	"os/exec"
	"strings"
	"testing"

	"github.com/tollwire/tollwire/internal/clients"
)

// TestOverLimitSaysSo: a body over the limit gives a record that says it is partial. A
// stream that is no faster than models are has no limit.
func TestOverLimitSaysSo(t *testing.T) {
	s := start(t)
	a := s.agent("--body-limit", "256KiB")
	s.finish(s.run(s.program("curl"), clients.Spec{BaseURL: s.sim.URL, CA: s.sim.CA, KeepAlive: true, Calls: []clients.Call{
		{Provider: "openai", PromptBytes: 1 << 20, Sim: "tokens=10"},
		{Provider: "openai", PromptBytes: 100, Sim: "body=1048576"},
		{Provider: "openai", PromptBytes: 100, Sim: "tokens=10"},
		{Provider: "openai", PromptBytes: 100, Stream: true, Sim: "body=524288;size=200;rate=50000"},
	}}))
	var said []string
	for _, r := range of("client", s.await(a, "client", 4)) {
		said = append(said, fmt.Sprintf("stream %v: %s %s", r.Stream, r.Completeness, r.Partial))
	}
	want := []string{"stream false: exact over_limit", "stream false: estimated over_limit", "stream false: exact ", "stream true: exact "}
	if strings.Join(said, "\n") != strings.Join(want, "\n") {
		t.Errorf("records:\n%s\nwant\n%s", strings.Join(said, "\n"), strings.Join(want, "\n"))
	}
	if s.scrape(a).Sum("tollwire_capture_bytes_total", "fate", "dropped", "reason", "over_limit") == 0 {
		t.Error("what was left out was not counted")
	}
}

// TestLongWebSocket: a WebSocket has no limit either, in neither direction.
func TestLongWebSocket(t *testing.T) {
	const questions = 4
	s := start(t)
	a := s.agent("--body-limit", "16KiB")
	at, err := url.Parse(s.sim.URL)
	if err != nil {
		t.Fatal(err)
	}
	socket := "wss://api.openai.com:" + at.Port() + "/v1/realtime?model=gpt-realtime&llmsim=tokens=400,rate=2000"
	cmd := exec.CommandContext(s.ctx, s.program("node").Path, "--experimental-websocket", "testdata/realtime.mjs", socket, fmt.Sprint(questions), "50000")
	cmd.Env = append(cmd.Environ(), "NODE_EXTRA_CA_CERTS="+s.sim.CA)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.ours[cmd.Process.Pid] = true
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Errorf("%q: %v", line, err)
	}
	if err := a.Tapped(s.ctx, cmd.Process.Pid); err != nil {
		t.Error(err)
	}
	fmt.Fprintln(in, "go")
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, stderr.Bytes())
	}
	for _, r := range of("client", s.matches(a, "client", questions)) {
		if r.Completeness != "exact" || r.Partial != "" || r.LostBytes != 0 {
			t.Errorf("%s: usage %s, partial %q, %d bytes lost", r.ResponseID, r.Completeness, r.Partial, r.LostBytes)
		}
	}
}
