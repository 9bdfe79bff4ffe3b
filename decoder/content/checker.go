package content

// Verdict is what a Checker knows.
type Verdict uint8

const (
	Unknown Verdict = iota // too deeply nested to follow, or nothing was written
	Valid
	Invalid
)

// maxNesting is how deeply the JSON may be nested that a Checker follows.
const maxNesting = 512

// Checker says whether a text that comes in pieces is one JSON value, without
// keeping any of it. The zero value is ready. A value in a Markdown fence is no JSON:
// the program that asked for JSON will not parse it either.
type Checker struct {
	state state
	depth int
	// object has a bit for each open bracket: it is an object's.
	object [maxNesting / 64]uint64
	inKey  bool
	lit    string // what is left of true, false or null
	hex    int    // digits of a \u escape still to come
	any    bool
}

type state uint8

const (
	value      state = iota // a value must come
	valueOrEnd              // or the array ends
	keyOrEnd                // a key, or the object ends
	key
	colon
	after // a comma or the end of what is open
	str
	escape
	literal
	minus
	zero
	digits
	point
	fraction
	exponent
	exponentSign
	exponentDigits
	bad
	lost
)

// Write takes the next piece. It never fails.
func (c *Checker) Write(p []byte) (int, error) {
	for _, b := range p {
		if c.state >= bad {
			break
		}
		if c.state == str && b != '"' && b != '\\' && b >= 0x20 && c.hex == 0 {
			continue // most bytes of most texts
		}
		c.any = c.any || b != ' ' && b != '\n' && b != '\r' && b != '\t'
		c.step(b)
	}
	return len(p), nil
}

// Result says whether what was written so far is one whole JSON value.
func (c *Checker) Result() Verdict {
	switch {
	case c.state == lost || !c.any:
		return Unknown
	case c.depth > 0:
		return Invalid
	case c.state == after, c.state == zero, c.state == digits, c.state == fraction, c.state == exponentDigits:
		return Valid
	}
	return Invalid
}

func (c *Checker) step(b byte) {
	digit := b-'0' < 10
	switch c.state {
	case zero, digits, fraction, exponentDigits:
		switch {
		case digit && c.state != zero:
			return
		case b == '.' && (c.state == zero || c.state == digits):
			c.state = point
			return
		case b|0x20 == 'e' && c.state != exponentDigits:
			c.state = exponent
			return
		}
		c.state = after // b belongs to what follows
	}
	if b == ' ' || b == '\n' || b == '\r' || b == '\t' {
		switch c.state {
		case value, valueOrEnd, keyOrEnd, key, colon, after:
			return
		}
	}
	switch c.state {
	case value, valueOrEnd:
		c.begin(b, digit)
	case keyOrEnd, key:
		switch {
		case b == '"':
			c.state, c.inKey = str, true
		case b == '}' && c.state == keyOrEnd:
			c.close(true)
		default:
			c.state = bad
		}
	case colon:
		c.to(b == ':', value)
	case after:
		switch {
		case b == ',' && c.depth > 0:
			c.state = value
			if c.inObject() {
				c.state = key
			}
		case b == '}' && c.depth > 0:
			c.close(true)
		case b == ']' && c.depth > 0:
			c.close(false)
		default:
			c.state = bad
		}
	case str:
		switch {
		case c.hex > 0:
			if c.hex--; !digit && b|0x20-'a' >= 6 {
				c.state = bad
			}
		case b == '"':
			c.state = after
			if c.inKey {
				c.state, c.inKey = colon, false
			}
		case b == '\\':
			c.state = escape
		default:
			c.state = bad // a control character
		}
	case escape:
		c.state = str
		switch b {
		case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		case 'u':
			c.hex = 4
		default:
			c.state = bad
		}
	case literal:
		if b != c.lit[0] {
			c.state = bad
		} else if c.lit = c.lit[1:]; c.lit == "" {
			c.state = after
		}
	case minus:
		c.number(b, digit)
	case point:
		c.to(digit, fraction)
	case exponent:
		if b == '+' || b == '-' {
			c.state = exponentSign
			return
		}
		c.to(digit, exponentDigits)
	case exponentSign:
		c.to(digit, exponentDigits)
	}
}

func (c *Checker) to(ok bool, next state) {
	if c.state = bad; ok {
		c.state = next
	}
}

// begin takes a value's first byte.
func (c *Checker) begin(b byte, digit bool) {
	switch b {
	case '{', '[':
		if c.depth == maxNesting {
			c.state = lost
			return
		}
		i, bit := c.depth/64, uint64(1)<<(c.depth%64)
		c.object[i] &^= bit
		c.state = valueOrEnd
		if b == '{' {
			c.object[i] |= bit
			c.state = keyOrEnd
		}
		c.depth++
	case ']':
		if c.state == valueOrEnd {
			c.close(false)
			return
		}
		c.state = bad
	case '"':
		c.state = str
	case 't':
		c.state, c.lit = literal, "rue"
	case 'f':
		c.state, c.lit = literal, "alse"
	case 'n':
		c.state, c.lit = literal, "ull"
	case '-':
		c.state = minus
	default:
		c.number(b, digit)
	}
}

func (c *Checker) number(b byte, digit bool) {
	if c.to(digit, digits); b == '0' {
		c.state = zero
	}
}

func (c *Checker) inObject() bool {
	i := c.depth - 1
	return c.object[i/64]>>(i%64)&1 == 1
}

func (c *Checker) close(object bool) {
	if c.inObject() != object {
		c.state = bad
		return
	}
	c.depth--
	c.state = after
}
