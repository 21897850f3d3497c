package etcdv3

import (
	"regexp"
	"strings"

	"google.golang.org/grpc/status"
)

// plain is an error of gRPC without its envelope, "rpc error: code = … desc = …". What it wraps is found as before.
type plain struct {
	error
	text string
}

func (p plain) Error() string { return p.text }

func (p plain) Unwrap() error { return p.error }

// dialed is how gRPC reports that it has no connection. The end of a long text may be missing.
var dialed = regexp.MustCompile(`^connection error: desc = "transport: (?:Error while dialing: )?(.*?)"?$`)

// plainly returns an error with what gRPC puts around its text taken away.
func plainly(err error) error {
	st, ok := status.FromError(err)
	if !ok || !strings.HasPrefix(err.Error(), "rpc error: ") || st.Message() == "" {
		return err
	}
	text := st.Message()
	if m := dialed.FindStringSubmatch(text); m != nil {
		text = strings.ReplaceAll(m[1], `\"`, `"`)
	}
	return plain{err, text}
}
