// Package estimate counts tokens that a provider did not state. It has one
// vocabulary, OpenAI's o200k_base, and a factor for each family of models whose own
// tokenizer differs; what comes out is an estimate, and labelled so wherever it goes.
package estimate

import (
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/tiktoken-go/tokenizer/codec"
)

// The vocabulary stands in the binary. It is set up at its first use, which takes
// some 90 ms and 7 MB, once.
var o200k = sync.OnceValue(codec.NewO200kBase)

// families are the factors from o200k_base's counts to a family's own, by the
// beginning of a model's name behind its vendor ("anthropic/", "us.meta."); the
// first that fits holds. Measured on the output text of the recorded corpora.
var families = []struct {
	prefix string
	factor float64
}{
	{"gpt-3.5", 1.02}, {"gpt-4-", 1.02}, {"gpt-4o", 1}, {"gpt-4.1", 1}, {"gpt-4.5", 1}, {"gpt-4", 1.02},
	{"text-embedding", 1.02},
	{"claude-opus-4-8", 1.6}, {"claude-sonnet-5", 1.6}, {"claude-fable", 1.6}, {"claude-opus-4-7", 1.6},
	{"claude", 1.2},
	{"gemini", 1.05}, {"gemma", 1.05},
	{"llama", 1.03}, {"mistral", 1.1}, {"mixtral", 1.1}, {"codestral", 1.1}, {"ministral", 1.1},
	{"deepseek", 1.05}, {"qwen", 1.05}, {"palmyra", 1.1}, {"command", 1.1},
}

// Factor is what o200k_base's count is multiplied with for a model.
func Factor(model string) float64 {
	model = strings.ToLower(model)
	for _, cut := range []string{"/", "."} { // "meta-llama/Llama-3", "us.anthropic.claude-…"
		for {
			head, rest, ok := strings.Cut(model, cut)
			if !ok || cut == "." && !letters(head) {
				break
			}
			model = rest
		}
	}
	model = strings.TrimPrefix(model, "meta-")
	for _, f := range families {
		if strings.HasPrefix(model, f.prefix) {
			return f.factor
		}
	}
	return 1
}

// letters reports whether s is a word or a region as Bedrock's model ids have them.
func letters(s string) bool {
	for _, c := range s {
		if (c < 'a' || c > 'z') && c != '-' {
			return false
		}
	}
	return s != ""
}

// Tokens is how many tokens a text of the given length in bytes makes for a model,
// when sample is its beginning: the sample's count, scaled to the length. Without a
// sample four bytes are a token.
func Tokens(model string, sample []byte, length int64) int64 {
	sample = whole(sample)
	if length <= 0 {
		return 0
	}
	if len(sample) == 0 {
		return int64(float64(length)/4*Factor(model) + 0.5)
	}
	n, err := o200k().Count(string(sample))
	if err != nil {
		n = len(sample) / 4
	}
	tokens := float64(n) * Factor(model)
	if length > int64(len(sample)) {
		tokens *= float64(length) / float64(len(sample))
	}
	return max(1, int64(tokens+0.5))
}

// whole takes a character off b's end of which only a part is there.
func whole(b []byte) []byte {
	for i := 1; i < utf8.UTFMax && i <= len(b); i++ {
		if c := b[len(b)-i]; utf8.RuneStart(c) {
			if !utf8.FullRune(b[len(b)-i:]) {
				return b[:len(b)-i]
			}
			break
		}
	}
	return b
}
