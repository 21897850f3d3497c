//go:build !nokube

package source_test

import (
	"io"
	"strings"
	"testing"

	"flanneld/options"
	"flanneld/source"
)

func TestAPrefixThatIsNoneIsRefused(t *testing.T) {
	for _, prefix := range []string{"a/b/c", "/"} {
		_, err := options.Parse([]string{"-kube-annotation-prefix=" + prefix}, nil, io.Discard, source.Check)
		if err == nil || !strings.Contains(err.Error(), "-kube-annotation-prefix") {
			t.Errorf("%q: error is %v, want one that names the flag", prefix, err)
		}
	}
}
