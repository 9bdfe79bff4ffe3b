package bedrock

import (
	"testing"

	"github.com/tollwire/tollwire/decoder/answer/answertest"
	"github.com/tollwire/tollwire/decoder/content"
)

var families = []string{"bedrock-converse", "bedrock-invoke"}

func TestRecordings(t *testing.T) {
	answertest.Run(t, New(content.Config{}), map[string]string{
		"[cohere.command-r]|response id":         "the body has a response_id",
		"test_inference_profile_embed|operation": "the body is an embedding; the model's name, an ARN, doesn't say so",
	}, families...)
}

func TestCutsAreNeverExact(t *testing.T) {
	answertest.Cuts(t, New(content.Config{}), 10, families...)
}

func FuzzDecode(f *testing.F) {
	answertest.Fuzz(f, New(content.Config{}), families...)
}
