package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// TestServe runs the command until its context ends, as SIGTERM ends it.
func TestServe(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r, w := io.Pipe()
	cmd := command()
	cmd.SetArgs([]string{"serve", "--dir", t.TempDir(), "--plan", "tokens=3", "--chatty-addr", "127.0.0.1:0"})
	cmd.SetOut(w)
	cmd.SetErr(io.Discard)
	ended := make(chan error, 1)
	go func() { ended <- cmd.ExecuteContext(ctx) }()
	line, err := bufio.NewReader(r).ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var at ready
	if err := json.Unmarshal(line, &at); err != nil || !at.Ready || at.TLS == "" || at.Plain == "" || at.Chatty == "" || at.PID != os.Getpid() {
		t.Fatalf("%v: %s", err, line)
	}
	resp, err := http.Post("http://"+at.Plain+"/v1/messages", "application/json", strings.NewReader(`{"model":"m"}`))
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("ended with %v", err)
	}
	ledger, err := os.ReadFile(at.Ledger)
	if err != nil || !strings.Contains(string(ledger), `"output":3`) {
		t.Errorf("%v: %s", err, ledger)
	}
}

func TestBadFlags(t *testing.T) {
	for want, args := range map[string][]string{
		"dir":             {"serve"},
		`unknown key "x"`: {"serve", "--dir", t.TempDir(), "--plan", "x=1"},
		"TLS version":     {"serve", "--dir", t.TempDir(), "--tls-min", "2"},
		"is above":        {"serve", "--dir", t.TempDir(), "--tls-min", "1.3", "--tls-max", "1.2"},
		"cipher suite":    {"serve", "--dir", t.TempDir(), "--ciphers", "ROT13"},
		"ecdsa or rsa":    {"serve", "--dir", t.TempDir(), "--key", "dsa"},
		"no such file":    {"serve", "--dir", t.TempDir(), "--har", "/nowhere.har"},
		"listen for TLS":  {"serve", "--dir", t.TempDir(), "--tls-addr", "256.0.0.1:1"},
		"unknown command": {"sevre"},
		"unknown flag":    {"serve", "--nonsense"},
	} {
		cmd := command()
		cmd.SetArgs(args)
		cmd.SetOut(io.Discard)
		cmd.SetErr(io.Discard)
		if err := cmd.Execute(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", args, err, want)
		}
	}
}
