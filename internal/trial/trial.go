// Package trial runs the agent and the provider simulator as the processes they
// are, for the demonstration and the tests that hold one to the other.
package trial

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/tollwire/tollwire/cmd/llmsim/ledgercheck"
	"github.com/tollwire/tollwire/cmd/llmsim/sim"
)

// Sim is a running llmsim.
type Sim struct {
	process
	URL   string // https://host:port
	Plain string // http://host:port
	CA    string // path, PEM
	// Chatty is host:port of a server that speaks no HTTP, when --chatty-addr asked for one.
	Chatty string

	ledger string
}

// StartSim starts the llmsim binary at path with its files in dir; args go to
// "llmsim serve".
func StartSim(path, dir string, args ...string) (*Sim, error) {
	s := &Sim{}
	stdout, err := s.start(exec.Command(path, append([]string{"serve", "--dir", dir}, args...)...))
	if err != nil {
		return nil, fmt.Errorf("start llmsim: %w", err)
	}
	var ready struct {
		TLS    string `json:"tls_addr"`
		Plain  string `json:"addr"`
		Chatty string `json:"chatty_addr"`
		CA     string `json:"ca"`
		Ledger string `json:"ledger"`
	}
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &ready)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("llmsim did not get ready: %w", err), s.Stop(syscall.SIGKILL))
	}
	go io.Copy(io.Discard, stdout)
	s.URL, s.Plain, s.CA, s.ledger = "https://"+ready.TLS, "http://"+ready.Plain, ready.CA, ready.Ledger
	s.Chatty = ready.Chatty
	return s, nil
}

// Ledger returns the calls that have ended, in that order.
func (s *Sim) Ledger() ([]*sim.Entry, error) {
	f, err := os.Open(s.ledger)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []*sim.Entry
	for d := json.NewDecoder(f); ; {
		e := new(sim.Entry)
		switch err := d.Decode(e); {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF): // a line may be half written
			return all, nil
		case err != nil:
			return nil, fmt.Errorf("read ledger: %w", err)
		}
		all = append(all, e)
	}
}

// Agent is a running tollwire.
type Agent struct {
	process
	Metrics string // http://host:port

	records string
}

// StartAgent starts the tollwire binary at path with its records in dir, and
// returns when it is attached; args go to "tollwire run".
func StartAgent(ctx context.Context, path, dir string, args ...string) (*Agent, error) {
	a := &Agent{records: filepath.Join(dir, "calls.jsonl")}
	args = append([]string{"run", "--records", a.records, "--listen", "127.0.0.1:0"}, args...)
	if _, err := a.start(exec.Command(path, args...)); err != nil {
		return nil, fmt.Errorf("start tollwire: %w", err)
	}
	for {
		if m := attached.FindStringSubmatch(a.Log()); m != nil {
			a.Metrics = "http://" + m[1]
			return a, nil
		}
		select {
		case <-a.done:
			return nil, fmt.Errorf("tollwire ended before it was attached (%v):\n%s", a.cmd.ProcessState, a.Log())
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("tollwire did not attach: %w\n%s", ctx.Err(), a.Log()), a.Stop(syscall.SIGKILL))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

var attached = regexp.MustCompile(`msg=attached .*metrics=(\S+)`)

// Records returns what the agent has written so far.
func (a *Agent) Records() ([]*ledgercheck.Record, error) {
	f, err := os.Open(a.records)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return ledgercheck.Read(f)
}

// Await returns the records once n of them are of the given role, or at the
// deadline of ctx what there is by then.
func (a *Agent) Await(ctx context.Context, role string, n int) ([]*ledgercheck.Record, error) {
	for {
		all, err := a.Records()
		if err != nil {
			return nil, err
		}
		have := 0
		for _, r := range all {
			if r.Role == role {
				have++
			}
		}
		if have >= n {
			return all, nil
		}
		select {
		case <-ctx.Done():
			return all, nil
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Tapped returns when a file of the process is tapped: of a program whose library
// nobody had mapped before, that takes a moment.
func (a *Agent) Tapped(ctx context.Context, pid int) error {
	return a.tapped(ctx, func(f tappedFile) bool { return slices.Contains(f.Processes, pid) }, fmt.Sprintf("process %d", pid))
}

// TappedFile returns when the file at path is tapped.
func (a *Agent) TappedFile(ctx context.Context, path string) error {
	return a.tapped(ctx, func(f tappedFile) bool { return f.Path == path }, path)
}

type tappedFile struct {
	Path      string `json:"path"`
	Processes []int  `json:"processes"`
}

func (a *Agent) tapped(ctx context.Context, is func(tappedFile) bool, what string) error {
	for {
		var attached []tappedFile
		if err := a.get(ctx, "/api/v1/attached", func(r io.Reader) error { return json.NewDecoder(r).Decode(&attached) }); err != nil {
			return err
		}
		if slices.ContainsFunc(attached, is) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s was not tapped: %w", what, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (a *Agent) get(ctx context.Context, path string, read func(io.Reader) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.Metrics+path, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("get %s: %w", path, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: %s", path, resp.Status)
	}
	return read(resp.Body)
}

// Samples are the values of a scrape.
type Samples map[string]*dto.MetricFamily

// Scrape reads /metrics.
func (a *Agent) Scrape(ctx context.Context) (all Samples, err error) {
	err = a.get(ctx, "/metrics", func(r io.Reader) (err error) {
		p := expfmt.NewTextParser(model.UTF8Validation)
		all, err = p.TextToMetricFamilies(r)
		return err
	})
	return all, err
}

// Sum adds up the series of a counter or gauge whose labels are as given, in pairs.
func (s Samples) Sum(name string, labels ...string) (sum float64) {
	f := s[name]
	if f == nil {
		return 0
	}
series:
	for _, m := range f.Metric {
		for i := 0; i+1 < len(labels); i += 2 {
			got := ""
			for _, l := range m.Label {
				if l.GetName() == labels[i] {
					got = l.GetValue()
				}
			}
			if got != labels[i+1] {
				continue series
			}
		}
		sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
	}
	return sum
}

// process is a child that is ended by its own id.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
	mu   sync.Mutex
	log  strings.Builder
}

func (p *process) start(cmd *exec.Cmd) (io.Reader, error) {
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = p
	cmd.SysProcAttr = dieWithParent()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p.cmd, p.done = cmd, make(chan struct{})
	go func() {
		cmd.Wait()
		close(p.done)
	}()
	return stdout, nil
}

// Write takes what the process says on stderr.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

// Log is what the process said on stderr.
func (p *process) Log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// PID is the process's id.
func (p *process) PID() int { return p.cmd.Process.Pid }

// Stop sends the signal and waits for the end, which must come within ten seconds
// and, but for SIGKILL, in order.
func (p *process) Stop(sig syscall.Signal) error {
	p.cmd.Process.Signal(sig)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("%s did not end within 10 s of %v\n%s", p.cmd.Path, sig, p.Log())
	}
	if !p.cmd.ProcessState.Success() && sig != syscall.SIGKILL {
		return fmt.Errorf("%s ended with %v\n%s", p.cmd.Path, p.cmd.ProcessState, p.Log())
	}
	return nil
}
