package jsonl

import (
	"bufio"
	"context"
	"fmt"
	"io"

	"github.com/tollwire/tollwire/account"
)

// Writer writes every record to an io.Writer and waits for it: for a recording,
// where nothing may be dropped and nobody else waits.
type Writer struct {
	w   *bufio.Writer
	buf []byte
	err error
}

// New returns a Writer to w.
func New(w io.Writer) *Writer { return &Writer{w: bufio.NewWriterSize(w, 64<<10)} }

// Export writes r. After an error it does nothing; Close returns it.
func (w *Writer) Export(r *account.Record) {
	if w.err == nil {
		w.buf = Append(w.buf[:0], r)
		_, w.err = w.w.Write(w.buf)
	}
}

// Close writes what is buffered and returns the first error.
func (w *Writer) Close(context.Context) error {
	if w.err == nil {
		w.err = w.w.Flush()
	}
	if w.err != nil {
		return fmt.Errorf("write records: %w", w.err)
	}
	return nil
}
