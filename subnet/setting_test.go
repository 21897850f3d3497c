package subnet_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"flanneld/subnet"
)

const (
	vxlan1    = `{"Type":"vxlan"}`
	vxlan2    = `{"Type":"vxlan","VNI":2}`
	wireguard = `{"Type":"wireguard"}`
)

// moving returns a configuration with the backends of a move; empty: none.
func moving(t *testing.T, main, next, previous, migrated string) subnet.Config {
	t.Helper()
	text := `{"Network":"10.5.0.0/16","Backend":` + main
	for key, v := range map[string]string{"Next": next, "Previous": previous, "Migrated": migrated} {
		if v != "" {
			text += fmt.Sprintf(`,%q:%s`, key, v)
		}
	}
	c, err := subnet.ParseConfig([]byte(text + "}"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAHostFollowsToWhatItsPeersReachItBy(t *testing.T) {
	for _, tt := range []struct {
		name      string
		now, then [4]string // Backend, Next, Previous, Migrated
		want      bool
	}{
		{"a move begins", [4]string{vxlan1}, [4]string{vxlan1, wireguard}, true},
		{"it is given up", [4]string{vxlan1, wireguard}, [4]string{vxlan1}, true},
		{"it switches", [4]string{vxlan1, wireguard}, [4]string{wireguard, "", vxlan1}, true},
		{"it switches back", [4]string{wireguard, "", vxlan1}, [4]string{vxlan1, wireguard}, true},
		{"the old one goes", [4]string{wireguard, "", vxlan1}, [4]string{wireguard, "", "", vxlan1}, true},
		{"a host that has missed the beginning", [4]string{vxlan1}, [4]string{wireguard, "", vxlan1}, true},
		{"a host that has missed all of it", [4]string{vxlan1}, [4]string{wireguard, "", "", vxlan1}, true},
		{"one that has seen the beginning only", [4]string{vxlan1, wireguard}, [4]string{wireguard, "", "", vxlan1}, true},
		{"another backend by hand", [4]string{vxlan1}, [4]string{wireguard}, false},
		{"another one than was moved from", [4]string{vxlan1}, [4]string{wireguard, "", "", vxlan2}, false},
		{"the same in another spelling", [4]string{vxlan1}, [4]string{`{ "type": "VXLAN" }`}, true},
	} {
		now := moving(t, tt.now[0], tt.now[1], tt.now[2], tt.now[3])
		then := moving(t, tt.then[0], tt.then[1], tt.then[2], tt.then[3])
		if got := then.FollowedFrom(now); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestTheBackendsOfAMoveAreReadInTheOrderOfPreference(t *testing.T) {
	c := moving(t, vxlan1, wireguard, "", "")
	all := c.Settings()
	if len(all) != 2 || all[0].Type != "vxlan" || all[1].Type != "wireguard" {
		t.Errorf("got %v", all)
	}
	one := c.Of(all[1])
	if one.BackendType != "wireguard" || string(one.Backend) != wireguard || len(one.Settings()) != 1 {
		t.Errorf("of the second: %+v", one)
	}
	if c.SameSettings(moving(t, vxlan1, vxlan2, "", "")) ||
		!c.SameSettings(moving(t, vxlan1, ` {"type":"WireGuard"}`, "", "")) {
		t.Error("settings are compared by what they say")
	}
	for _, bad := range []string{`"Next":7`, `"Next":{}`, `"Previous":{"Type":1}`, `"Next":{"Type":"udp"},"Previous":{"Type":"udp"}`} {
		if _, err := subnet.ParseConfig([]byte(`{"Network":"10.5.0.0/16",` + bad + `}`)); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}

func TestAPeerIsOneIfItOffersABackendOfTheNetwork(t *testing.T) {
	lease := func(kind string, offers ...subnet.Offer) subnet.Lease {
		return subnet.Lease{Subnet: netip.MustParsePrefix("10.5.1.0/24"), Attrs: subnet.Attrs{
			PublicIP: netip.MustParseAddr("192.0.2.1"), BackendType: kind, Offers: subnet.OffersText(offers)}}
	}
	vxlan, wg := subnet.Offer{Type: "vxlan"}, subnet.Offer{Type: "wireguard"}
	for _, tt := range []struct {
		name  string
		next  string
		lease subnet.Lease
		want  bool
	}{
		{"the backend of the network", "", lease("vxlan"), true},
		{"another one", "", lease("wireguard"), false},
		{"another one, and the network's is offered", "", lease("wireguard", vxlan), true},
		{"the next one", wireguard, lease("wireguard"), true},
		{"neither", wireguard, lease("udp"), false},
		{"neither, and one of them is offered", wireguard, lease("udp", wg), true},
	} {
		peers := subnet.NewPeerTable("me", func(subnet.Lease) error { return nil })
		r := subnet.Record{Identity: "other", Leases: []subnet.Lease{tt.lease}}
		peers.Put(&subnet.Entry{Record: r, Key: r.Key(), LeaseID: 1})
		got, skipped, _ := peers.Peers(moving(t, vxlan1, tt.next, "", ""), nil)
		if (got.Len() == 1) != tt.want || (skipped == 0) != tt.want {
			t.Errorf("%s: %d peers, %d skipped", tt.name, got.Len(), skipped)
		}
		for _, why := range peers.Reasons(moving(t, vxlan1, tt.next, "", ""), nil) {
			if !strings.Contains(why, "its backend is") {
				t.Errorf("%s: %s", tt.name, why)
			}
		}
	}
}
