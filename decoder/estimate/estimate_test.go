package estimate

import (
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestTokens(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start := time.Now()
	if n := Tokens("gpt-4o", []byte("Hello, world!"), 13); n != 4 {
		t.Errorf("Hello, world! is %d tokens", n)
	}
	took := time.Since(start)
	runtime.GC()
	runtime.ReadMemStats(&after)
	t.Logf("first use: %v, %d KiB kept", took, (int64(after.HeapAlloc)-int64(before.HeapAlloc))>>10)
	text := []byte(strings.Repeat("The quick brown fox jumps over the lazy dog. ", 100))
	whole, part := Tokens("gpt-4o", text, int64(len(text))), Tokens("gpt-4o", text[:1000], int64(len(text)))
	if d := whole - part; d < -20 || d > 20 {
		t.Errorf("whole %d, by a sample %d", whole, part)
	}
	if n := Tokens("gpt-4o", nil, 0); n != 0 {
		t.Error(n)
	}
	if n := Tokens("x", []byte("\xe2\x82"), 2); n != 1 {
		t.Error(n)
	}
	if n := Tokens("x", nil, 400); n != 100 {
		t.Error(n)
	}
}

func TestFactor(t *testing.T) {
	for model, want := range map[string]float64{
		"gpt-4o-mini": 1, "gpt-4-0613": 1.02, "anthropic/claude-3-haiku": 1.2, "us.anthropic.claude-3-5-sonnet-20240620-v1:0": 1.2,
		"meta-llama/Llama-3.1-8B": 1.03, "meta.llama3-70b-instruct-v1:0": 1.03, "o3-mini": 1, "": 1, "gpt-3.5-turbo": 1.02,
	} {
		if got := Factor(model); got != want {
			t.Errorf("%s: %v, want %v", model, got, want)
		}
	}
}

func BenchmarkTokens(b *testing.B) {
	text := []byte(strings.Repeat("The quick brown fox jumps over the lazy dog. ", 23))[:1024]
	Tokens("", text, 1)
	b.SetBytes(1024)
	for b.Loop() {
		Tokens("", text, 1024)
	}
}
