package etcdv3

import (
	"errors"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestErrorsOfTheConnectionAreReadable(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{status.Error(codes.Unavailable, `connection error: desc = "transport: Error while dialing: dial tcp 192.0.2.1:2379: `+
			`connect: connection refused"`), "dial tcp 192.0.2.1:2379: connect: connection refused"},
		{status.Error(codes.Unavailable, `connection error: desc = "transport: authentication handshake failed: tls: x`),
			"authentication handshake failed: tls: x"},
		{status.Error(codes.Canceled, "context canceled"), "context canceled"},
		{status.Error(codes.Internal, ""), "rpc error: code = Internal desc = "},
		{errors.New("rpc error: none"), "rpc error: none"},
	} {
		got := plainly(tt.err)
		if got.Error() != tt.want {
			t.Errorf("%v is %q, want %q", tt.err, got, tt.want)
		}
		if !errors.Is(got, tt.err) || status.Code(got) != status.Code(tt.err) {
			t.Errorf("%q hides %v", got, tt.err)
		}
	}
}
