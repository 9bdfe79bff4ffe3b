package e2e

import (
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tollwire/tollwire/cmd/llmsim/ledgercheck"
	"github.com/tollwire/tollwire/cmd/llmsim/sim"
	"github.com/tollwire/tollwire/internal/clients"
	"github.com/tollwire/tollwire/internal/trial"
)

// TestEveryClient: each program, started before the agent and after it, over one
// kept connection and over fresh ones, several at once; and curl without TLS.
func TestEveryClient(t *testing.T) {
	s := start(t)
	const plan = "tokens=30;rate=600;first=20ms;cached=100;think=5"
	var runs []*clients.Run
	n := 0
	add := func(c *clients.Client, spec clients.Spec) {
		n += len(spec.Calls)
		runs = append(runs, s.run(c, spec))
	}
	for i := range s.programs {
		add(&s.programs[i], clients.Spec{BaseURL: s.sim.URL, CA: s.sim.CA, Calls: both(plan), KeepAlive: true, Wait: true})
	}
	a := s.agent()
	for _, r := range runs {
		if err := r.Go(); err != nil {
			t.Fatal(err)
		}
	}
	for i := range s.programs {
		add(&s.programs[i], clients.Spec{BaseURL: s.sim.URL, CA: s.sim.CA, Calls: both(plan), Concurrency: 2})
	}
	add(s.program("curl"), clients.Spec{BaseURL: s.sim.Plain, Calls: both(plan), KeepAlive: true})
	for _, r := range runs {
		s.finish(r)
	}
	s.matches(a, "client", n)
	s.matches(a, "server", n)
	all, err := a.Records() // of other programs of the machine too: so are the metrics
	if err != nil {
		t.Fatal(err)
	}
	var counted float64
	for _, r := range all {
		usd, ok := new(big.Rat).SetString(r.Cost)
		if ok && (r.Relay == "" || r.Relay == "payer") {
			f, _ := usd.Float64()
			counted += f
		}
	}
	m := s.scrape(a)
	if got := m.Sum("tollwire_cost_usd_total"); got-counted > 1e-9 || counted-got > 1e-9 {
		t.Errorf("tollwire_cost_usd_total is %g, the records that count cost %g: money must be summed once", got, counted)
	}
	if d := s.dropped(a); d != 0 {
		t.Errorf("%.0f bytes dropped", d)
	}
}

// TestSeenIsWhatTheClientCounted: the bytes that the taps saw are those that the
// program itself moved. Other programs of the machine can only add to what is seen,
// so one exact match in a few tries is proof.
func TestSeenIsWhatTheClientCounted(t *testing.T) {
	s := start(t)
	a := s.agent("--sockets", "off")
	seen := func(source string) float64 {
		s.balanced(a)
		return s.scrape(a).Sum("tollwire_capture_seen_bytes_total", "source", source)
	}
	for name, source := range map[string]string{"python-http": "openssl", "python-asyncio": "openssl", "go": "gotls", "go-stripped": "gotls"} {
		var differ []string
		for try := 0; try < 5; try++ {
			openssl, gotls := seen("openssl"), seen("gotls")
			res := s.finish(s.run(s.program(name), clients.Spec{BaseURL: s.sim.URL, CA: s.sim.CA, Calls: both("tokens=20"), KeepAlive: true}))
			moved := float64(res.TotalSent + res.TotalReceived)
			if moved == 0 {
				t.Fatalf("%s counted no bytes", name)
			}
			// The simulator's end is crypto/tls as well and saw the same bytes.
			wantOpenSSL, wantGo := 0.0, moved
			if source == "openssl" {
				wantOpenSSL = moved
			} else {
				wantGo += moved
			}
			openssl, gotls = seen("openssl")-openssl, seen("gotls")-gotls
			if openssl == wantOpenSSL && gotls == wantGo {
				differ = nil
				break
			}
			differ = append(differ, fmt.Sprintf("openssl %.0f of %.0f, gotls %.0f of %.0f", openssl, wantOpenSSL, gotls, wantGo))
		}
		if differ != nil {
			t.Errorf("%s: bytes seen and moved: %s", name, strings.Join(differ, "; "))
		}
	}
}

// TestBigBodies: a prompt of 3 MiB and a stream of 2 MiB come through whole, and so does a
// prompt that looks like requests wherever a write or a read cuts it.
func TestBigBodies(t *testing.T) {
	s := start(t)
	a := s.agent()
	n := 0
	for _, name := range []string{"curl", "python-http", "node", "go"} {
		var headers map[string]string
		if name == "curl" { // whose requests have an interim answer before their body
			headers = map[string]string{"Expect": "100-continue"}
		}
		s.finish(s.run(s.program(name), clients.Spec{BaseURL: s.sim.URL, CA: s.sim.CA, Calls: []clients.Call{
			{Provider: "openai", PromptBytes: 3 << 20, Stream: true, Sim: "tokens=10"},
			{Provider: "anthropic", PromptBytes: 100, Stream: true, Sim: "body=2097152;size=4000"},
			{Provider: "openai", PromptBytes: 512 << 10, Prompt: "GET /x ", Headers: headers, Sim: "tokens=10"},
			{Provider: "anthropic", PromptBytes: 512 << 10, Prompt: "POST / ", Headers: headers, Stream: true, Sim: "tokens=10"},
		}}))
		n += 4
	}
	s.matches(a, "client", n)
	s.matches(a, "server", n)
	if d := s.dropped(a); d != 0 {
		t.Errorf("%.0f bytes dropped", d)
	}
}

// TestOtherTrafficStaysInTheKernel: nine other requests and then a call on one kept
// connection, a download of 200 MiB, a chatty plaintext server.
func TestOtherTrafficStaysInTheKernel(t *testing.T) {
	s := start(t, "--chatty-addr", "127.0.0.1:0")
	a := s.agent()
	decoded := func() float64 {
		s.balanced(a)
		return s.scrape(a).Sum("tollwire_capture_bytes_total", "fate", "decoded")
	}

	var other []clients.Request
	for i := range 9 {
		other = append(other, clients.Request{Method: "GET", Path: fmt.Sprintf("/big?bytes=%d", 50_000+i)})
	}
	// quiet runs f until no more than limit bytes cross meanwhile: other programs of
	// the machine can only add to what crosses.
	quiet := func(what string, limit float64, f func()) {
		t.Helper()
		var got float64
		for range 5 {
			before := decoded()
			f()
			if got = decoded() - before; got <= limit {
				return
			}
		}
		t.Errorf("%s: %.0f bytes crossed, want at most %.0f", what, got, limit)
	}
	n := 0
	for _, name := range []string{"curl", "python-http", "node", "go", "curl over HTTP/2", "go over HTTP/2"} {
		program, _, http2 := strings.Cut(name, " over ")
		limit := 40_000.
		if http2 { // what crosses before the verdict may be all of so short an answer, at both ends
			limit += 2 * 9 * 51_000
		}
		quiet("a call after nine downloads of 50,000 bytes with "+name, limit, func() {
			s.finish(s.run(s.program(program), clients.Spec{BaseURL: s.sim.URL, CA: s.sim.CA, KeepAlive: true, HTTP2: http2, Before: other,
				Calls: []clients.Call{{Provider: "openai", PromptBytes: 500, Stream: true, Sim: "tokens=20"}}}))
			n++
			s.matches(a, "client", n)
		})
	}
	const size = 200 << 20
	for _, of := range []struct {
		version, url string
		limit        float64 // on HTTP/2 the frames cross that are no DATA, and DATA until the verdict
	}{{"--http1.1", s.sim.URL, 0}, {"--http1.1", s.sim.Plain, 0}, {"--http2", s.sim.URL, 16 << 20}} {
		quiet("download from "+of.url+" with "+of.version, of.limit, func() {
			out, err := exec.CommandContext(s.ctx, "curl", of.version, "--silent", "--show-error", "--cacert", s.sim.CA, "--output", "/dev/null",
				"--write-out", "%{size_download}", fmt.Sprintf("%s/big?bytes=%d", of.url, size)).CombinedOutput()
			if err != nil || strings.TrimSpace(string(out)) != fmt.Sprint(size) {
				t.Fatalf("download: %v: %s", err, out)
			}
		})
	}
	quiet("a chatty server that speaks no HTTP", 0, func() {
		conn, err := net.Dial("tcp", s.sim.Chatty)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		buf := make([]byte, 4096)
		for i := range 2000 {
			if _, err := fmt.Fprintf(conn, "PING %d\r\n", i); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Read(buf); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestTinyRing: what a ring has no room for is counted, and the records are marked.
func TestTinyRing(t *testing.T) {
	s := start(t)
	a := s.agent("--ring-bytes", "64KiB", "--rings", "1")
	calls := make([]clients.Call, 8)
	for i := range calls {
		calls[i] = clients.Call{Provider: "openai", PromptBytes: 1 << 20, Stream: true, Sim: "body=400000;size=1000"}
	}
	s.finish(s.run(s.program("go"), clients.Spec{BaseURL: s.sim.URL, CA: s.sim.CA, KeepAlive: true, Concurrency: 4, Calls: calls}))
	s.ledger(len(calls))
	time.Sleep(2 * time.Second) // records whose end was lost come with the connection's end
	records := s.await(a, "client", 1)
	lost := s.scrape(a).Sum("tollwire_capture_bytes_total", "fate", "dropped", "reason", "ring_full")
	if lost == 0 {
		t.Fatal("a ring of 64 KiB lost nothing: the test says nothing")
	}
	byID := map[string]*sim.Entry{}
	for _, e := range s.ledger(len(calls)) {
		byID[e.ID] = e
	}
	marked := 0
	for _, r := range records {
		e := byID[r.ResponseID]
		if r.Partial != "" {
			marked++
		}
		if r.LostBytes > 0 && r.Partial == "" {
			t.Errorf("%s lost %d bytes and does not say so", r.ResponseID, r.LostBytes)
		}
		if r.Completeness == "exact" && e != nil && r.Usage["output"] != e.Usage["output"] {
			t.Errorf("%s: output %v is called exact, the ledger says %v", r.ResponseID, r.Usage["output"], e.Usage["output"])
		}
	}
	if marked == 0 {
		t.Errorf("%.0f bytes lost, and none of %d records says so", lost, len(records))
	}
	t.Logf("%.0f bytes lost, %d of %d records say so", lost, marked, len(records))
}

// TestErrorsAndCuts: HTTP errors, errors in the body of a 200, and streams cut by
// the server.
func TestErrorsAndCuts(t *testing.T) {
	s := start(t)
	a := s.agent()
	var calls []clients.Call
	for _, provider := range []string{"openai", "anthropic"} {
		for _, plan := range []string{"error=429", "error=529", "error=500", "error=inband;tokens=10", "cut=5;tokens=20"} {
			calls = append(calls, clients.Call{Provider: provider, Stream: true, PromptBytes: 300, Sim: plan})
		}
	}
	r, err := s.run(s.program("python-http"), clients.Spec{BaseURL: s.sim.URL, CA: s.sim.CA, Calls: calls}).Wait()
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Calls) != len(calls) {
		t.Fatalf("the client made %d calls", len(r.Calls))
	}
	s.matches(a, "client", len(calls))
}

// TestCutByTheClient: a client that goes away in mid-stream leaves a record that says cut.
func TestCutByTheClient(t *testing.T) {
	s := start(t)
	a := s.agent()
	r := s.run(s.program("node"), clients.Spec{BaseURL: s.sim.URL, CA: s.sim.CA,
		Calls: []clients.Call{{Provider: "anthropic", Stream: true, PromptBytes: 300, Sim: "tokens=2000;rate=100"}}})
	s.inStreams(1)
	if err := r.Kill(); err != nil {
		t.Fatal(err)
	}
	r.Wait()
	records := s.await(a, "client", 1)
	if !slices.ContainsFunc(records, func(r *ledgercheck.Record) bool { return r.Role == "client" }) {
		t.Fatal("no record of the call")
	}
	for _, c := range records {
		if c.Role == "client" && (c.Error != "cut" || c.Partial != "cut" || c.Completeness == "exact") {
			t.Errorf("error.type %q, partial %q, completeness %q", c.Error, c.Partial, c.Completeness)
		}
	}
}

// TestKilledInMidStream: the agent's end, however it comes, harms no client and
// leaves no program in the kernel.
func TestKilledInMidStream(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			s := start(t)
			a, err := trial.StartAgent(s.ctx, bin.agent, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			ours := programs(t, a.PID())
			if len(loaded(t, ours)) == 0 {
				t.Fatal("the agent loaded no program: the test says nothing")
			}
			var runs []*clients.Run
			for i := range s.programs {
				runs = append(runs, s.run(&s.programs[i], clients.Spec{BaseURL: s.sim.URL, CA: s.sim.CA, Wait: true,
					Calls: []clients.Call{{Provider: "openai", Stream: true, PromptBytes: 300, Sim: "tokens=600;rate=150"}}}))
			}
			for _, r := range runs {
				if err := r.Go(); err != nil {
					t.Fatal(err)
				}
			}
			s.inStreams(len(runs))
			if err := a.Stop(sig); err != nil {
				t.Error(err)
			}
			for _, r := range runs {
				s.finish(r)
			}
			for _, e := range s.ledger(len(runs)) {
				if e.Outcome != "completed" {
					t.Errorf("%s: %s", e.Client, e.Outcome)
				}
			}
			left := loaded(t, ours)
			for deadline := time.Now().Add(5 * time.Second); len(left) > 0 && time.Now().Before(deadline); left = loaded(t, ours) {
				time.Sleep(50 * time.Millisecond)
			}
			if len(left) > 0 {
				t.Errorf("%d of the agent's %d programs are in the kernel", len(left), len(ours))
			}
		})
	}
}

// TestPricedAPI: downloads that a rule of the price book prices become records and
// money of their own once the rule is there, counted once though both ends are seen,
// over HTTP/1 and HTTP/2; the calls to models beside them stay what they are.
func TestPricedAPI(t *testing.T) {
	s := start(t)
	host, _, err := net.SplitHostPort(strings.TrimPrefix(s.sim.URL, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	const book = "format: tollwire-prices/1\n"
	file := filepath.Join(t.TempDir(), "prices.yaml")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(book)
	a := s.agent("--prices", file)
	before := []clients.Request{{Method: "GET", Path: "/big?bytes=2000"}, {Method: "GET", Path: "/big?bytes=70000"}, {Method: "GET", Path: "/health"}}
	n := 0
	ask := func() {
		for _, name := range []string{"curl", "python-http", "node", "go"} {
			s.finish(s.run(s.program(name), clients.Spec{BaseURL: s.sim.URL, CA: s.sim.CA, KeepAlive: true, Before: before, HTTP2: name == "go",
				Calls: []clients.Call{{Provider: "openai", PromptBytes: 500, Stream: true, Sim: "tokens=20"}}}))
			n++
		}
		s.matches(a, "client", n)
	}
	priced := func() (calls, usd float64) {
		m := s.scrape(a)
		return m.Sum("tollwire_api_calls_total", "api", "geocoder", "status", "ok"), m.Sum("tollwire_api_cost_usd_total", "api", "geocoder")
	}
	ask()
	if calls, usd := priced(); calls != 0 || usd != 0 {
		t.Errorf("%v calls for %v USD without a rule", calls, usd)
	}
	write(book + fmt.Sprintf("apis: [{name: geocoder, endpoints: [%q], methods: get, per_thousand: 5}]\n", host+"/big"))
	for deadline := time.Now().Add(30 * time.Second); s.scrape(a).Sum("tollwire_price_book_reloads_total") == 0; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the price book was not reloaded")
		}
	}
	ask()
	calls, usd := priced()
	for deadline := time.Now().Add(5 * time.Second); calls < 8 && time.Now().Before(deadline); calls, usd = priced() {
		time.Sleep(50 * time.Millisecond)
	}
	if calls != 8 || usd < 0.04-1e-9 || usd > 0.04+1e-9 {
		t.Errorf("%v calls for %v USD, want 8 for 0.04", calls, usd)
	}
}
