// Package sdks installs vendors' own SDKs, unmodified, and has each stream an answer
// from a server: eleven on Node, three in Go.
package sdks

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Stream is one answer as an SDK gave it to its caller.
type Stream struct {
	Name   string `json:"name"`
	Text   string `json:"text"`
	Input  int64  `json:"input"`  // tokens, cached ones too; 0 where the SDK reports none
	Output int64  `json:"output"` // tokens; 0 where the SDK reports none
	Error  string `json:"error"`
}

// Suite is a program that runs several SDKs, one after the other.
type Suite struct {
	Name string
	Dir  string // where it is installed
	path string
	args []string
}

//go:embed streams.mjs
var nodeProgram []byte

//go:embed package.json
var nodePackages []byte

//go:embed streams.go.txt
var goProgram []byte

// goModules are the versions the Go program was written against.
var goModules = []string{
	"github.com/openai/openai-go/v3@v3.96.0",
	"github.com/anthropics/anthropic-sdk-go@v1.84.0",
	"google.golang.org/genai@v1.77.0",
}

// Node installs the SDKs for Node into dir (npm, some 240 MB), unless they are there.
func Node(ctx context.Context, dir string) (*Suite, error) {
	node, err := exec.LookPath("node")
	if err != nil {
		return nil, fmt.Errorf("find node: %w", err)
	}
	dir = filepath.Join(dir, "node-sdks")
	script := filepath.Join(dir, "streams.mjs")
	done := filepath.Join(dir, "installed.json")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(script, nodeProgram, 0o644); err != nil {
		return nil, err
	}
	if have, _ := os.ReadFile(done); !bytes.Equal(have, nodePackages) {
		if err := os.WriteFile(filepath.Join(dir, "package.json"), nodePackages, 0o644); err != nil {
			return nil, err
		}
		if err := run(ctx, dir, "npm", "install", "--no-audit", "--no-fund", "--loglevel=error"); err != nil {
			return nil, err
		}
		if err := os.WriteFile(done, nodePackages, 0o644); err != nil {
			return nil, err
		}
	}
	return &Suite{Name: "node", Dir: dir, path: node, args: []string{script}}, nil
}

// Go builds the program of the Go SDKs in dir, unless it is there.
func Go(ctx context.Context, dir string) (*Suite, error) {
	dir = filepath.Join(dir, "go-sdks")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	stamp := []byte(strings.Join(goModules, "\n") + "\n" + string(goProgram))
	program, done := filepath.Join(dir, "streams"), filepath.Join(dir, "built")
	if have, _ := os.ReadFile(done); bytes.Equal(have, stamp) {
		return &Suite{Name: "go", Dir: dir, path: program}, nil
	}
	for name, text := range map[string][]byte{"go.mod": []byte("module streams\n\ngo 1.26\n"), "main.go": goProgram} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return nil, err
		}
	}
	if err := run(ctx, dir, "go", append([]string{"get"}, goModules...)...); err != nil {
		return nil, err
	}
	if err := run(ctx, dir, "go", "build", "-o", program, "."); err != nil {
		return nil, err
	}
	return &Suite{Name: "go", Dir: dir, path: program}, os.WriteFile(done, stamp, 0o644)
}

func run(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-buildvcs=false", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, args[0], err, out)
	}
	return nil
}

// Command is the suite's process against a server whose CA is the PEM file ca.
func (s *Suite) Command(ctx context.Context, baseURL, ca string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, s.path, append(s.args, baseURL)...)
	cmd.Env = append(os.Environ(), "NODE_EXTRA_CA_CERTS="+ca, "SSL_CERT_FILE="+ca, "NODE_NO_WARNINGS=1")
	return cmd
}

// Read reads what the suite's process printed.
func Read(stdout []byte) ([]Stream, error) {
	var out []Stream
	for line := range bytes.Lines(stdout) {
		if !bytes.HasPrefix(line, []byte("{")) {
			continue // an SDK's own warning
		}
		var s Stream
		if err := json.Unmarshal(line, &s); err != nil {
			return nil, fmt.Errorf("read what an SDK saw: %w", err)
		}
		out = append(out, s)
	}
	return out, nil
}
