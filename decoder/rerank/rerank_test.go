package rerank

import (
	"testing"

	"github.com/tollwire/tollwire/decoder/answer/answertest"
)

func TestRecordings(t *testing.T) {
	answertest.Run(t, New(), nil, "voyage-rerank")
}

func TestCutsAreNeverExact(t *testing.T) {
	answertest.Cuts(t, New(), 20, "voyage-rerank")
}

func FuzzDecode(f *testing.F) {
	answertest.Fuzz(f, New(), "voyage-rerank")
}
