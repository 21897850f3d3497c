package need

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
)

// Address returns an address of TCP to listen on that stays free while nobody listens there: below the ports that the
// kernel gives to connections by itself.
func Address(t testing.TB) netip.AddrPort {
	t.Helper()
	for range 100 {
		addr := fmt.Sprint("127.0.0.1:", 10_000+rand.IntN(20_000))
		if l, err := net.Listen("tcp", addr); err == nil {
			_ = l.Close()
			return netip.MustParseAddrPort(addr)
		}
	}
	t.Fatal("no free port")
	return netip.AddrPort{}
}
