package sim

import (
	"iter"
	"math/rand/v2"
	"strings"
)

// A piece is one delta's worth of generated text.
type piece struct {
	text   string
	tokens int // how many tokens it stands for; paces the stream
}

// plain are tokens of ASCII letters; tricky ones hold what a JSON reader must get
// right: escapes, several bytes a character, markup.
var (
	plain = strings.Fields(`the a of and to in is it for on with as that at by from this an be or not are was we
		you they all one more when which can will its if so up out about there their time way light water stone
		paper river green small large north early quiet answer number question simple measure follow open`)
	tricky = append(strings.Fields(`"quoted" back\slash {brace} [list] <b>&amp; naïve café 東京 данные 🙂 50% ","`), plain...)
)

// speak yields the visible text of p, the same for the same seed: Tokens tokens,
// one a piece; or Body bytes of ASCII; either cut into pieces of Size bytes.
func speak(p *Plan, seed uint64) iter.Seq[piece] {
	rnd := rand.New(rand.NewPCG(seed, 0x746f6b656e73))
	if p.Size > 0 {
		bytes := p.Body
		if bytes == 0 {
			bytes = 5 * p.Tokens
		}
		return sized(rnd, bytes, p.Size, p.Tokens)
	}
	return worded(rnd, p.Tokens, tricky)
}

// Text is the visible text that a call with this plan answers.
func (p *Plan) Text() string { return gather(speak(p, p.Seed)) }

// ponder yields the reasoning text of p.
func ponder(p *Plan, seed uint64) iter.Seq[piece] {
	return worded(rand.New(rand.NewPCG(seed, 0x7468696e6b)), p.Think, plain)
}

func worded(rnd *rand.Rand, tokens int, vocabulary []string) iter.Seq[piece] {
	return func(yield func(piece) bool) {
		for i := range tokens {
			w := vocabulary[rnd.IntN(len(vocabulary))]
			switch {
			case i%17 == 16:
				w = ".\n\n" + w
			case i > 0:
				w = " " + w
			}
			if !yield(piece{w, 1}) {
				return
			}
		}
	}
}

func sized(rnd *rand.Rand, bytes, size, tokens int) iter.Seq[piece] {
	return func(yield func(piece) bool) {
		var b strings.Builder
		said := 0
		for done := 0; done < bytes; {
			n := min(size, bytes-done)
			b.Reset()
			for b.Len() < n {
				b.WriteString(plain[rnd.IntN(len(plain))])
				b.WriteByte(' ')
			}
			done += n
			now := int(int64(tokens) * int64(done) / int64(bytes))
			if !yield(piece{b.String()[:n], now - said}) {
				return
			}
			said = now
		}
	}
}

// gather joins all pieces.
func gather(pieces iter.Seq[piece]) string {
	var b strings.Builder
	for p := range pieces {
		b.WriteString(p.text)
	}
	return b.String()
}

// toolArguments is the JSON of a tool call, in the pieces it is streamed in.
var toolArguments = []string{`{"ci`, `ty":"Par`, `is","days":`, `3}`}

// served is the model that answers when model is asked for: providers answer an
// alias with the dated id behind it.
func served(p *Plan, model string) string {
	if p.Model != "" {
		return p.Model
	}
	switch model {
	case "gpt-4o":
		return "gpt-4o-2024-08-06"
	case "gpt-4o-mini":
		return "gpt-4o-mini-2024-07-18"
	case "gpt-4.1":
		return "gpt-4.1-2025-04-14"
	case "gpt-4.1-mini":
		return "gpt-4.1-mini-2025-04-14"
	case "gpt-5":
		return "gpt-5-2025-08-07"
	case "gpt-5-mini":
		return "gpt-5-mini-2025-08-07"
	case "claude-sonnet-4-5":
		return "claude-sonnet-4-5-20250929"
	case "claude-haiku-4-5":
		return "claude-haiku-4-5-20251001"
	case "claude-opus-4-1":
		return "claude-opus-4-1-20250805"
	case "claude-3-5-haiku-latest":
		return "claude-3-5-haiku-20241022"
	}
	return model
}
