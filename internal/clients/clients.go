// Package clients runs real, unmodified programs that make LLM calls: curl, Python
// with http.client and with asyncio, Node, Go with and without symbols. Each runs
// as a process of its own and reports what it saw by its own clock.
package clients

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Call is one LLM call.
type Call struct {
	Provider    string // "openai" (POST /v1/chat/completions) or "anthropic" (POST /v1/messages)
	Model       string // "" for a usual one
	Stream      bool
	NoUsage     bool              // OpenAI streams: do not ask for usage
	PromptBytes int               // length of the prompt's text
	Prompt      string            // what the text repeats; "" for a question
	Sim         string            // x-llmsim: how llmsim is to answer
	Headers     map[string]string // more request headers
	Body        string            // "" for a body made of the above
	Path        string            // "" for the provider's
}

// Request is a request that is no LLM call.
type Request struct {
	Method string `json:"method"`
	Path   string `json:"path"`
	Body   string `json:"body"`
}

// Spec is what a client does: the calls, spread over Concurrency workers in turn.
type Spec struct {
	BaseURL     string // https://host:port or http://host:port
	CA          string // path of the CA's certificate, PEM
	Calls       []Call
	Before      []Request // made on each new connection, before its first call
	KeepAlive   bool      // one connection a worker; else one a call
	Concurrency int       // 0 means 1
	HTTP2       bool      // curl and Go only: HTTP/2 where the server offers it
	Tag         string    // x-client header, "" for the client's name

	// Wait starts the program and has it wait, TLS library loaded, until Run.Go,
	// once WaitAfter calls are made. curl can only wait before its first call.
	Wait      bool
	WaitAfter int
}

// Client is one program.
type Client struct {
	Name    string // curl, python-http, python-asyncio, node, go, go-stripped
	Path    string // of the executable that runs
	Library string // where its TLS comes from: a mapped libssl's path, or "linked in", or "crypto/tls"
	HTTP2   bool   // can speak HTTP/2

	args func(spec *Spec, file string) (*exec.Cmd, error)
	read func(stdout []byte, n int) (*Result, error)
}

// Result is what a client saw.
type Result struct {
	Calls []CallResult `json:"calls"`
	// Application bytes over all connections, both ways, as the client counted
	// them; 0 when it can't (curl, node).
	TotalSent     int64  `json:"total_sent"`
	TotalReceived int64  `json:"total_received"`
	ExitCode      int    `json:"-"`
	Stderr        string `json:"-"`
}

// CallResult is one call as the client saw it. Times are CLOCK_MONOTONIC in
// nanoseconds; 0 or nil where the client notes none (curl).
type CallResult struct {
	Index     int     `json:"index"` // in Spec.Calls
	ID        string  `json:"id"`    // of the body
	RequestID string  `json:"request_id"`
	Status    int     `json:"status"`
	OK        bool    `json:"ok"` // the response came to its end
	Error     string  `json:"error"`
	Sent      int64   `json:"sent"`     // bytes of the request's body
	Received  int64   `json:"received"` // bytes of the response's body
	Begin     int64   `json:"begin"`    // before the request was written
	Written   int64   `json:"written"`  // after it was; 0 where the answer was there before the client could note it
	Contents  []int64 `json:"contents"` // when the bytes of each content delta were there
	End       int64   `json:"end"`
}

//go:embed scripts/client.py
var pythonScript []byte

//go:embed scripts/client.mjs
var nodeScript []byte

//go:embed scripts/client.go.txt
var goProgram []byte

// All returns every client of this machine; dir keeps scripts and built programs.
// The error names the programs that are missing or did not build; the clients
// returned beside it are usable.
func All(ctx context.Context, dir string) ([]Client, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	var all []Client
	var errs []error
	for _, find := range []func(context.Context, string) ([]Client, error){findCurl, findPython, findNode, buildGo} {
		c, err := find(ctx, dir)
		all = append(all, c...)
		errs = append(errs, err)
	}
	return all, errors.Join(errs...)
}

func findCurl(ctx context.Context, _ string) ([]Client, error) {
	path, err := exec.LookPath("curl")
	if err != nil {
		return nil, fmt.Errorf("find curl: %w", err)
	}
	return []Client{{
		Name: "curl", Path: path, Library: linked(ctx, path), HTTP2: true,
		args: func(s *Spec, file string) (*exec.Cmd, error) { return curlCommand(path, s, file) },
		read: readCurl,
	}}, nil
}

// linked is the libssl that the dynamic linker would map for path.
func linked(ctx context.Context, path string) string {
	out, err := exec.CommandContext(ctx, "ldd", path).Output()
	if err != nil {
		return ""
	}
	return libssl(string(out))
}

func libssl(text string) string {
	for word := range strings.FieldsSeq(text) {
		if strings.HasPrefix(word, "/") && strings.Contains(filepath.Base(word), "libssl") {
			return word
		}
	}
	return ""
}

func findPython(ctx context.Context, dir string) ([]Client, error) {
	// The system's python first: a shim (pyenv) may stand before it in PATH.
	path, err := exec.LookPath("/usr/bin/python3")
	if err != nil {
		if path, err = exec.LookPath("python3"); err != nil {
			return nil, fmt.Errorf("find python3: %w", err)
		}
	}
	return Python(ctx, dir, path, "")
}

// Python returns the two clients of one Python interpreter; suffix is added to
// their names.
func Python(ctx context.Context, dir, path, suffix string) ([]Client, error) {
	script := filepath.Join(dir, "client.py")
	if err := os.WriteFile(script, pythonScript, 0o644); err != nil {
		return nil, err
	}
	const probe = "import ssl,sys;print(sys.executable);print(open('/proc/self/maps').read())"
	out, err := exec.CommandContext(ctx, path, "-c", probe).Output()
	if err != nil {
		return nil, fmt.Errorf("probe %s: %w", path, err)
	}
	real, maps, _ := strings.Cut(string(out), "\n")
	library := libssl(maps)
	if library == "" {
		library = "linked in"
	}
	var clients []Client
	for _, kind := range []string{"http", "asyncio"} {
		clients = append(clients, Client{
			Name: "python-" + kind + suffix, Path: real, Library: library,
			args: func(_ *Spec, file string) (*exec.Cmd, error) { return exec.Command(real, script, kind, file), nil },
			read: readJSON,
		})
	}
	return clients, nil
}

func findNode(_ context.Context, dir string) ([]Client, error) {
	path, err := exec.LookPath("node")
	if err != nil {
		return nil, fmt.Errorf("find node: %w", err)
	}
	script := filepath.Join(dir, "client.mjs")
	if err := os.WriteFile(script, nodeScript, 0o644); err != nil {
		return nil, err
	}
	return []Client{{
		Name: "node", Path: path, Library: "linked in",
		args: func(_ *Spec, file string) (*exec.Cmd, error) { return exec.Command(path, script, file), nil },
		read: readJSON,
	}}, nil
}

// buildGo builds the Go client with and without symbols, unless dir has them from
// the same source.
func buildGo(ctx context.Context, dir string) ([]Client, error) {
	src := filepath.Join(dir, "goclient")
	if err := os.MkdirAll(src, 0o755); err != nil {
		return nil, err
	}
	main := filepath.Join(src, "main.go")
	old, _ := os.ReadFile(main)
	fresh := string(old) == string(goProgram)
	if err := os.WriteFile(filepath.Join(src, "go.mod"), []byte("module client\n\ngo 1.26\n"), 0o644); err != nil {
		return nil, err
	}
	var clients []Client
	for name, flags := range map[string]string{"go": "", "go-stripped": "-s -w"} {
		path := filepath.Join(dir, name+"-client")
		if _, err := os.Stat(path); err != nil || !fresh {
			if err := os.WriteFile(main, goProgram, 0o644); err != nil {
				return nil, err
			}
			cmd := exec.CommandContext(ctx, "go", "build", "-ldflags", flags, "-o", path, ".")
			cmd.Dir = src
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false", "GOWORK=off")
			if out, err := cmd.CombinedOutput(); err != nil {
				os.Remove(main) // so that the next run does not take it for built
				return clients, fmt.Errorf("build the %s client: %w\n%s", name, err, out)
			}
		}
		clients = append(clients, Client{
			Name: name, Path: path, Library: "crypto/tls", HTTP2: true,
			args: func(_ *Spec, file string) (*exec.Cmd, error) { return exec.Command(path, file), nil },
			read: readJSON,
		})
	}
	return clients, nil
}

// readJSON reads what the scripts print: a line for each time they waited, and the
// result last.
func readJSON(stdout []byte, _ int) (*Result, error) {
	lines := strings.Split(strings.TrimSpace(string(stdout)), "\n")
	var r Result
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &r); err != nil {
		return nil, fmt.Errorf("read the client's result: %w", err)
	}
	return &r, nil
}
