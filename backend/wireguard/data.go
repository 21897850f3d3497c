package wireguard

import (
	"encoding/json"
	"errors"
	"fmt"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// data is what a lease of this backend carries.
type data struct {
	PublicKey wgtypes.Key
	Port      uint16 // 0: that of the network configuration
}

func parseData(text string) (data, error) {
	var in struct {
		PublicKey string
		Port      uint16
	}
	if err := json.Unmarshal([]byte(text), &in); err != nil {
		return data{}, fmt.Errorf("backend data %.100q: %w", text, err)
	}
	if in.PublicKey == "" {
		return data{}, errors.New("backend data has no PublicKey")
	}
	key, err := wgtypes.ParseKey(in.PublicKey)
	if err != nil || key == (wgtypes.Key{}) {
		return data{}, fmt.Errorf("PublicKey %.60q is no key: want 32 bytes in base64", in.PublicKey)
	}
	return data{key, in.Port}, nil
}

func (d data) String() string {
	text, err := json.Marshal(struct {
		PublicKey string
		Port      uint16
	}{d.PublicKey.String(), d.Port})
	if err != nil {
		panic(err) // a string and a number
	}
	return string(text)
}
