package llm

import "math"

// Class is one disjoint class of usage: no token is counted in two.
type Class uint8

const (
	Input          Class = iota // text read fresh
	CacheRead                   // read from the prompt cache
	CacheWrite                  // written to it, time to live unstated
	CacheWrite5m                // written for five minutes
	CacheWrite1h                // written for an hour
	InputAudio                  //
	InputImage                  //
	InputVideo                  //
	CacheReadAudio              //
	ToolInput                   // prompts made by the provider's own tools
	Output                      // visible output
	Reasoning                   // thinking
	OutputAudio                 //
	OutputImage                 //
	Citation                    // Perplexity's citation tokens
	firstUnit                   // from here on: units that are no tokens
	Seconds        Class = iota - 1
	Images         Class = iota - 1
	Characters     Class = iota - 1
	Pages          Class = iota - 1
	Searches       Class = iota - 1
	SearchUnits    Class = iota - 1
	Requests       Class = iota - 1
	NumClasses     Class = iota - 1
)

var classNames = [NumClasses]string{
	"input", "cache_read", "cache_write", "cache_write_5m", "cache_write_1h",
	"input_audio", "input_image", "input_video", "cache_read_audio", "tool_input",
	"output", "reasoning", "output_audio", "output_image", "citation",
	"seconds", "images", "characters", "pages", "searches", "search_units", "requests",
}

// String is the key in tollwire.usage and the metric label "class".
func (c Class) String() string { return classNames[c] }

// ClassOf returns the class of that name.
func ClassOf(name string) (Class, bool) {
	for i, n := range classNames {
		if n == name {
			return Class(i), true
		}
	}
	return 0, false
}

// IsToken reports whether the class counts tokens.
func (c Class) IsToken() bool { return c < firstUnit }

// IsInput reports whether the class is part of the input total.
func (c Class) IsInput() bool { return c <= ToolInput }

// IsOutput reports whether the class is part of the output total.
func (c Class) IsOutput() bool { return c >= Output && c <= Citation }

// IsCacheRead reports whether the class counts tokens read from a prompt cache.
func (c Class) IsCacheRead() bool { return c == CacheRead || c == CacheReadAudio }

// IsCacheWrite reports whether the class counts tokens written to one.
func (c Class) IsCacheWrite() bool { return c >= CacheWrite && c <= CacheWrite1h }

// Usage is an amount for each class that was stated. Tokens are whole numbers;
// Seconds may have a fraction. The zero value states nothing.
type Usage struct {
	n   [NumClasses]float64
	has uint32
}

// MaxAmount bounds what a provider can make us believe: every whole number up to
// it is exact in a float64.
const MaxAmount = 1 << 53

// Set states n for class c. Amounts that cannot be (negative, not a number, over
// MaxAmount, a part of a token) are refused with false and state nothing.
func (u *Usage) Set(c Class, n float64) bool {
	if !(n >= 0 && n <= MaxAmount) || c.IsToken() && n != math.Trunc(n) {
		return false
	}
	u.n[c], u.has = n, u.has|1<<c
	return true
}

// Get returns what was stated for class c, or 0.
func (u *Usage) Get(c Class) float64 { return u.n[c] }

// Has reports whether class c was stated; a stated zero counts.
func (u *Usage) Has(c Class) bool { return u.has&(1<<c) != 0 }

// Empty reports whether nothing was stated.
func (u *Usage) Empty() bool { return u.has == 0 }

// HasTokens reports whether any class of tokens was stated.
func (u *Usage) HasTokens() bool { return u.has&(1<<firstUnit-1) != 0 }

// InputTotal returns the sum of the input classes in tokens.
func (u *Usage) InputTotal() (n float64, ok bool) { return u.Sum(Class.IsInput) }

// OutputTotal returns the sum of the output classes in tokens.
func (u *Usage) OutputTotal() (n float64, ok bool) { return u.Sum(Class.IsOutput) }

// Sum returns the sum of the classes for which in is true, and whether any was stated.
func (u *Usage) Sum(in func(Class) bool) (n float64, ok bool) {
	for c := range NumClasses {
		if in(c) && u.Has(c) {
			n, ok = n+u.n[c], true
		}
	}
	return n, ok
}
