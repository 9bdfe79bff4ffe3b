// Package e2e runs the agent as users run it, beside the provider simulator and
// real, unmodified clients, and holds what it says to the simulator's ledger and
// to what the clients saw. It needs root.
package e2e

import (
	"context"
	"errors"
	"flag"
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

	"github.com/cilium/ebpf"

	"github.com/tollwire/tollwire/cmd/llmsim/ledgercheck"
	"github.com/tollwire/tollwire/cmd/llmsim/sim"
	"github.com/tollwire/tollwire/internal/clients"
	"github.com/tollwire/tollwire/internal/trial"
)

var bin = struct{ agent, llmsim string }{"../bin/tollwire", "../bin/llmsim"}

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Geteuid() != 0 || testing.Short() {
		fmt.Println("e2e: skipped: attaches, and so needs root and some minutes; make test-root runs it")
		os.Exit(0)
	}
	for out, pkg := range map[string]string{bin.agent: "../cmd/agent", bin.llmsim: "../cmd/llmsim"} {
		if b, err := exec.Command("go", "build", "-o", out, pkg).CombinedOutput(); err != nil {
			fmt.Printf("e2e: build %s: %v\n%s", pkg, err, b)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// setup is a simulator and the clients of this machine.
type setup struct {
	*testing.T
	ctx      context.Context
	sim      *trial.Sim
	programs []clients.Client
	running  *trial.Agent // nil before it was started
	ours     map[int]bool // processes that the test started: others of the machine may call models too
	keeper   *clients.Run // a curl that waits for good
}

func start(t *testing.T, simArgs ...string) *setup {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	programs, err := clients.All(ctx, filepath.Join(cache, "tollwire", "clients"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := trial.StartSim(bin.llmsim, t.TempDir(), simArgs...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
	})
	return &setup{T: t, ctx: ctx, sim: s, programs: programs, ours: map[int]bool{s.PID(): true}}
}

// program returns one of the clients.
func (s *setup) program(name string) *clients.Client {
	s.Helper()
	i := slices.IndexFunc(s.programs, func(c clients.Client) bool { return c.Name == name })
	if i < 0 {
		s.Fatalf("no client %q on this machine", name)
	}
	return &s.programs[i]
}

// agent starts the agent; at the end of the test its books are balanced and it is stopped.
func (s *setup) agent(args ...string) *trial.Agent {
	s.Helper()
	a, err := trial.StartAgent(s.ctx, bin.agent, s.TempDir(), args...)
	if err != nil {
		s.Fatal(err)
	}
	s.running = a
	s.Cleanup(func() {
		s.balanced(a)
		if err := a.Stop(syscall.SIGTERM); err != nil {
			s.Error(err)
		}
		if s.Failed() {
			s.Logf("the agent said:\n%s", a.Log())
		}
	})
	return a
}

// run starts a client. Unless it is to wait for its caller, it makes its calls at
// once; but a file that nobody had mapped before is given the moment it takes to be
// tapped. (How often a first request is faster is another test's question.)
func (s *setup) run(c *clients.Client, spec clients.Spec) *clients.Run {
	s.Helper()
	wait := spec.Wait
	spec.Wait = wait || len(spec.Before) == 0 || c.Name != "curl"
	if !spec.Wait {
		s.keepTapped(c, spec)
	}
	r, err := c.Start(s.ctx, spec)
	if err != nil {
		s.Fatal(err)
	}
	s.ours[r.PID] = true
	if !spec.Wait {
		return r
	}
	if err := r.Ready(s.ctx); err != nil {
		s.Fatal(err)
	}
	if !wait {
		if s.running != nil && spec.CA != "" {
			if err := s.running.Tapped(s.ctx, r.PID); err != nil {
				s.Fatal(err)
			}
		}
		if err := r.Go(); err != nil {
			s.Fatal(err)
		}
	}
	return r
}

// keepTapped keeps the libraries of a client that cannot wait mapped, and so tapped.
func (s *setup) keepTapped(c *clients.Client, spec clients.Spec) {
	s.Helper()
	if s.keeper != nil || s.running == nil || spec.CA == "" {
		return
	}
	spec.Before, spec.Wait = nil, true
	r, err := c.Start(s.ctx, spec)
	if err != nil {
		s.Fatal(err)
	}
	s.keeper = r
	s.Cleanup(func() {
		r.Kill()
		r.Wait()
	})
	if err := errors.Join(r.Ready(s.ctx), s.running.Tapped(s.ctx, r.PID)); err != nil {
		s.Fatal(err)
	}
}

// finish waits for a client, all of whose calls must have gone well by its own account.
func (s *setup) finish(r *clients.Run) *clients.Result {
	s.Helper()
	res, err := r.Wait()
	if err != nil {
		s.Fatal(err)
	}
	if res.ExitCode != 0 {
		s.Errorf("client ended with %d: %s", res.ExitCode, res.Stderr)
	}
	for _, c := range res.Calls {
		if !c.OK {
			s.Errorf("call %d failed for the client itself: %d %s", c.Index, c.Status, c.Error)
		}
	}
	return res
}

// ledger returns the n calls that the simulator served.
func (s *setup) ledger(n int) []*sim.Entry {
	s.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		all, err := s.sim.Ledger()
		if err != nil {
			s.Fatal(err)
		}
		if len(all) >= n {
			return all
		}
		if time.Now().After(deadline) {
			s.Fatalf("the ledger has %d calls, want %d", len(all), n)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// matches holds the records of one role to the ledger's n calls.
func (s *setup) matches(a *trial.Agent, role string, n int) []*ledgercheck.Record {
	s.Helper()
	ledger := s.ledger(n)
	records := s.await(a, role, n)
	o := ledgercheck.Options{Role: role, Price: trial.Price}
	for _, m := range ledgercheck.Check(ledger, records, o).Mismatches {
		s.Errorf("%s: %s", role, m)
	}
	return records
}

// await returns the records of the test's own programs' calls to models, once n of them are of the
// given role or no more are to be expected.
func (s *setup) await(a *trial.Agent, role string, n int) (ours []*ledgercheck.Record) {
	s.Helper()
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		all, err := a.Records()
		if err != nil {
			s.Fatal(err)
		}
		ours = slices.DeleteFunc(all, func(r *ledgercheck.Record) bool { return !s.ours[r.PID] || r.API != "" })
		have := 0
		for _, r := range ours {
			if r.Role == role {
				have++
			}
		}
		if have >= n || time.Now().After(deadline) {
			return ours
		}
	}
}

func (s *setup) scrape(a *trial.Agent) trial.Samples {
	s.Helper()
	m, err := a.Scrape(s.ctx)
	if err != nil {
		s.Fatal(err)
	}
	return m
}

// balanced: seen = decoded + ignored + dropped, once nothing is in flight.
func (s *setup) balanced(a *trial.Agent) {
	s.Helper()
	var seen, fates float64
	for range 100 {
		m, err := a.Scrape(s.ctx)
		if err != nil {
			s.Errorf("scrape: %v", err)
			return
		}
		seen, fates = m.Sum("tollwire_capture_seen_bytes_total"), m.Sum("tollwire_capture_bytes_total")
		if seen == fates {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	s.Errorf("seen %.0f bytes, decoded + ignored + dropped %.0f", seen, fates)
}

// both are the calls that every client makes: two providers, unary and streamed.
func both(sim string) (calls []clients.Call) {
	for _, provider := range []string{"openai", "anthropic"} {
		for _, stream := range []bool{false, true} {
			calls = append(calls, clients.Call{Provider: provider, Stream: stream, PromptBytes: 2000, Sim: sim})
		}
	}
	return calls
}

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
	if d := m.Sum("tollwire_capture_bytes_total", "fate", "dropped"); d != 0 {
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
	if d := s.scrape(a).Sum("tollwire_capture_bytes_total", "fate", "dropped"); d != 0 {
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
	time.Sleep(700 * time.Millisecond)
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
			before := programs(t)
			a, err := trial.StartAgent(s.ctx, bin.agent, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			if programs(t) == before {
				t.Fatal("the agent loaded no program: the test says nothing")
			}
			var runs []*clients.Run
			for i := range s.programs {
				runs = append(runs, s.run(&s.programs[i], clients.Spec{BaseURL: s.sim.URL, CA: s.sim.CA,
					Calls: []clients.Call{{Provider: "openai", Stream: true, PromptBytes: 300, Sim: "tokens=300;rate=150"}}}))
			}
			time.Sleep(time.Second) // all are in their streams of two seconds
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
			left := programs(t)
			for deadline := time.Now().Add(5 * time.Second); left > before && time.Now().Before(deadline); left = programs(t) {
				time.Sleep(50 * time.Millisecond)
			}
			if left > before {
				t.Errorf("%d programs are in the kernel, %d were before", left, before)
			}
		})
	}
}

// programs counts the BPF programs in the kernel.
func programs(t *testing.T) (n int) {
	t.Helper()
	for id := ebpf.ProgramID(0); ; n++ {
		next, err := ebpf.ProgramGetNextID(id)
		if errors.Is(err, os.ErrNotExist) {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
		id = next
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
