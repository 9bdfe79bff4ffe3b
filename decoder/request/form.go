package request

import (
	"errors"
	"io"
	"mime/multipart"
	"strconv"
)

// maxPartHead bounds what a part's head may cost, in bytes.
const maxPartHead = 64 << 10

var errPartHead = errors.New("a part's head is too long")

// guard fails when the head of a part goes on and on: mime/multipart would hold
// ten megabytes of it.
type guard struct {
	r    io.Reader
	n    int64 // bytes read
	left int64 // before the guard fails; less than 0: any number
}

func (g *guard) Read(p []byte) (int, error) {
	if g.left == 0 {
		return 0, errPartHead
	}
	if g.left > 0 {
		p = p[:min(int64(len(p)), g.left)]
	}
	n, err := g.r.Read(p)
	g.n += int64(n)
	if g.left > 0 {
		g.left -= int64(n)
	}
	return n, err
}

// form reads a multipart form: audio transcriptions, image edits.
func (b *body) form(r io.Reader, boundary string) error {
	g := &guard{r: r}
	defer func() { b.f.Bytes = g.n }()
	m := multipart.NewReader(g, boundary)
	for {
		g.left = maxPartHead
		part, err := m.NextRawPart()
		if err == io.EOF {
			b.f.Whole = b.f.Known
			return nil
		}
		if err != nil {
			return unwrap(err)
		}
		g.left = -1
		b.f.Known = true
		name := part.FormName()
		if len(name) > 256 {
			name = name[:256]
		}
		b.key([]byte(name))
		if part.FileName() != "" {
			name = ""
		}
		err = b.part(name, part)
		if err == nil {
			_, err = io.Copy(io.Discard, part)
		}
		if err != nil {
			return unwrap(err)
		}
	}
}

// part reads one field of a form.
func (b *body) part(name string, r io.Reader) error {
	f := b.f
	switch name {
	case "prompt", "input":
		var buf [1024]byte
		for {
			n, err := r.Read(buf[:])
			b.sample(buf[:n])
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
		}
	case "model", "stream", "size", "quality", "n", "response_format":
		text, err := io.ReadAll(io.LimitReader(r, 256))
		if err != nil {
			return err // the value may go on: it does not count
		}
		switch v := string(text); name {
		case "model":
			f.Model = v
		case "stream":
			if on, err := strconv.ParseBool(v); err == nil {
				f.Stream, f.StreamSet = on, true
			}
		case "size":
			f.ImageSize = v
		case "quality":
			f.ImageQuality = v
		case "n":
			if n, err := strconv.Atoi(v); err == nil && n > 0 && n <= 1000 {
				f.ImageCount = n
			}
		}
	}
	return nil
}

// unwrap takes mime/multipart's words off the reader's own error.
func unwrap(err error) error {
	if inner := errors.Unwrap(err); inner != nil {
		return inner
	}
	return err
}
