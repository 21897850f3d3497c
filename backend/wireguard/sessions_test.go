package wireguard_test

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"flanneld/backend"
	"flanneld/backend/wireguard"
)

func TestAPeerIsSilentIfItIsCalledAndDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := wireguard.Calls{}
		see := func(handshake time.Time, sent int64) bool {
			return c.Silent(wgtypes.Peer{PublicKey: public(1), LastHandshakeTime: handshake, TransmitBytes: sent}, time.Now())
		}
		never := time.Time{}
		for range 2 {
			if see(never, 0) {
				t.Error("a peer that nobody sends to is silent")
			}
		}
		if see(never, 148) {
			t.Error("a peer is silent that had no time to answer")
		}
		time.Sleep(20 * time.Second)
		if !see(never, 296) {
			t.Error("a peer that does not answer is not silent")
		}
		met := time.Now()
		if see(met, 500) {
			t.Error("a peer is silent that has just answered")
		}
		time.Sleep(170 * time.Second)
		if see(met, 9000) {
			t.Error("a peer with a session is silent")
		}
		time.Sleep(time.Hour)
		if see(met, 9000) {
			t.Error("a peer is silent that nobody has sent to since the session ended")
		}
		see(met, 9148)
		time.Sleep(15 * time.Second)
		if !see(met, 9296) {
			t.Error("a peer that has gone is not silent")
		}
		see(time.Now(), 1<<20)
		see(never, 148) // the device is a new one
		time.Sleep(20 * time.Second)
		if !see(never, 296) {
			t.Error("a peer that does not answer a new device is not silent")
		}
	})
}

func TestSessionsAreThoseOfTheLastLook(t *testing.T) {
	r := newRig(t, config4)
	r.set(selfAlone, lease("10.5.2.0/24", "192.0.2.2", 2))
	met := time.Now()
	r.tunnels.Open["flannel-wg"].See = func(p *wgtypes.Peer) {
		p.LastHandshakeTime, p.ReceiveBytes, p.TransmitBytes = met,
			10, 20
	}
	r.b.Look()
	got := r.b.Sessions()
	want := backend.Session{Handshake: met, Endpoint: netip.MustParseAddrPort("192.0.2.2:4500"), Received: 10, Sent: 20}
	if len(got) != 1 || got[netip.MustParsePrefix("10.5.2.0/24")] != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
