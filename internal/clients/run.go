package clients

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Run is a client's process.
type Run struct {
	PID int

	client *Client
	calls  int
	cmd    *exec.Cmd
	dir    string
	stdin  io.WriteCloser
	gate   []byte // what Go writes
	stdout *watched
	stderr bytes.Buffer
	done   chan struct{}
	err    error
}

// Start starts the client on spec. When spec.Wait is set it then waits for Go. ctx
// ends the process.
func (c *Client) Start(ctx context.Context, spec Spec) (*Run, error) {
	spec.Concurrency = max(spec.Concurrency, 1)
	if spec.Tag == "" {
		spec.Tag = c.Name
	}
	if spec.HTTP2 && !c.HTTP2 {
		return nil, fmt.Errorf("%s speaks no HTTP/2", c.Name)
	}
	dir, err := os.MkdirTemp("", "client-")
	if err != nil {
		return nil, err
	}
	r := &Run{client: c, calls: len(spec.Calls), dir: dir, done: make(chan struct{}), gate: []byte("go\n")}
	if err := r.start(ctx, &spec); err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("start %s: %w", c.Name, err)
	}
	return r, nil
}

func (r *Run) start(ctx context.Context, spec *Spec) error {
	file := filepath.Join(r.dir, "spec.json")
	b, err := json.Marshal(spec.wire())
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		return err
	}
	if r.cmd, err = r.client.args(spec, file); err != nil {
		return err
	}
	if r.client.Name == "curl" && spec.Wait {
		r.gate = []byte(spec.wire().Calls[0].Body) // curl waits for its first body
	}
	r.cmd.Dir = r.dir
	r.stdout = newWatched()
	r.cmd.Stdout, r.cmd.Stderr = r.stdout, &r.stderr
	r.cmd.WaitDelay = time.Second
	if spec.Wait {
		if r.stdin, err = r.cmd.StdinPipe(); err != nil {
			return err
		}
	}
	if err := r.cmd.Start(); err != nil {
		return err
	}
	r.PID = r.cmd.Process.Pid
	stop := context.AfterFunc(ctx, func() { r.cmd.Process.Kill() })
	go func() {
		r.err = r.cmd.Wait()
		stop()
		close(r.done)
	}()
	return nil
}

// Ready returns when the program waits for Go, its TLS library loaded.
func (r *Run) Ready(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if r.waits() {
			return nil
		}
		select {
		case <-tick.C:
		case <-r.done:
			return fmt.Errorf("%s ended before it waited: %s", r.client.Name, strings.TrimSpace(r.stderr.String()))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// waits reports whether the program stands at its gate. The scripts say so; curl
// does not, but is seen to block in a read of its standard input.
func (r *Run) waits() bool {
	if r.client.Name != "curl" {
		return r.stdout.has(`"waiting"`)
	}
	call, err := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", r.PID))
	return err == nil && strings.HasPrefix(string(call), fmt.Sprintf("%d 0x0 ", syscall.SYS_READ))
}

// Go lets a program that waits go on.
func (r *Run) Go() error {
	if r.stdin == nil {
		return errors.New("the program was not told to wait")
	}
	_, err := r.stdin.Write(r.gate)
	return errors.Join(err, r.stdin.Close())
}

// Kill ends the process at once, as SIGKILL does.
func (r *Run) Kill() error { return r.cmd.Process.Kill() }

// Wait returns what the client saw, when it has ended. A failed call is no error
// here; a client that crashed is.
func (r *Run) Wait() (*Result, error) {
	<-r.done
	defer os.RemoveAll(r.dir)
	var exit *exec.ExitError
	if r.err != nil && !errors.As(r.err, &exit) {
		return nil, fmt.Errorf("run %s: %w", r.client.Name, r.err)
	}
	res, err := r.client.read(r.stdout.bytes(), r.calls)
	if err != nil {
		return nil, fmt.Errorf("%s: %w (%v)\n%s", r.client.Name, err, r.err, r.stderr.String())
	}
	res.ExitCode, res.Stderr = r.cmd.ProcessState.ExitCode(), r.stderr.String()
	if r.client.Name == "curl" {
		readCurlBodies(r.dir, res)
	}
	return res, nil
}

// watched gathers a process's output and can be looked into while it runs.
type watched struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func newWatched() *watched { return &watched{} }

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.Write(p)
}

func (w *watched) has(text string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return bytes.Contains(w.buf.Bytes(), []byte(text))
}

func (w *watched) bytes() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return bytes.Clone(w.buf.Bytes())
}

// wireSpec is a Spec as the scripts read it.
type wireSpec struct {
	BaseURL     string     `json:"base_url"`
	CA          string     `json:"ca"`
	KeepAlive   bool       `json:"keep_alive"`
	HTTP2       bool       `json:"http2"`
	Concurrency int        `json:"concurrency"`
	Wait        bool       `json:"wait"`
	WaitAfter   int        `json:"wait_after"`
	Before      []Request  `json:"before"`
	Calls       []wireCall `json:"calls"`
}

type wireCall struct {
	Path    string            `json:"path"`
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body"`
}

func (s *Spec) wire() wireSpec {
	w := wireSpec{
		BaseURL: s.BaseURL, CA: s.CA, KeepAlive: s.KeepAlive, HTTP2: s.HTTP2, Concurrency: s.Concurrency,
		Wait: s.Wait, WaitAfter: s.WaitAfter, Before: s.Before, Calls: []wireCall{},
	}
	if w.Before == nil {
		w.Before = []Request{}
	}
	for i := range s.Calls {
		w.Calls = append(w.Calls, s.Calls[i].wire(s.Tag))
	}
	return w
}

func (c *Call) wire(tag string) wireCall {
	w := wireCall{Path: c.Path, Body: c.Body, Headers: map[string]string{
		"Content-Type": "application/json", "X-Client": tag,
	}}
	if c.Sim != "" {
		w.Headers["X-Llmsim"] = c.Sim
	}
	anthropic := c.Provider == "anthropic"
	// The host is named as behind the provider's DNS name: it says whose prices hold.
	w.Headers["Host"] = "api.openai.com"
	if anthropic {
		w.Headers["Host"] = "api.anthropic.com"
		w.Headers["Anthropic-Version"], w.Headers["X-Api-Key"] = "2023-06-01", "sk-ant-test"
	} else {
		w.Headers["Authorization"] = "Bearer sk-test"
	}
	for k, v := range c.Headers {
		w.Headers[k] = v
	}
	if w.Path == "" {
		w.Path = "/v1/chat/completions"
		if anthropic {
			w.Path = "/v1/messages"
		}
	}
	if w.Body != "" {
		return w
	}
	text := cmp.Or(c.Prompt, "How long is a piece of string? ")
	prompt := strings.Repeat(text, c.PromptBytes/len(text)+1)[:max(c.PromptBytes, 5)]
	body := map[string]any{
		"model":    c.Model,
		"messages": []any{map[string]string{"role": "user", "content": prompt}},
	}
	if c.Model == "" {
		body["model"] = "gpt-4o-mini"
		if anthropic {
			body["model"] = "claude-sonnet-4-5"
		}
	}
	if anthropic {
		body["max_tokens"] = 1024
	}
	if c.Stream {
		body["stream"] = true
		if !anthropic && !c.NoUsage {
			body["stream_options"] = map[string]bool{"include_usage": true}
		}
	}
	b, err := json.Marshal(body)
	if err != nil {
		panic(err) // maps of strings and booleans
	}
	w.Body = string(b)
	return w
}
