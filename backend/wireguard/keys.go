package wireguard

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"strings"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"flanneld/backend/wireguard/options"
	"flanneld/subnet"
)

// loadKey returns the private key, which it makes if there is none.
func loadKey(files options.KeyFiles, log *slog.Logger) (wgtypes.Key, error) {
	key, err := findKey(files, log)
	if err != nil {
		return wgtypes.Key{}, err
	}
	if key == (wgtypes.Key{}) {
		if key, err = wgtypes.GeneratePrivateKey(); err != nil {
			return wgtypes.Key{}, fmt.Errorf("make a private key: %w", err)
		}
		log.Info("private key generated", "public", key.PublicKey().String())
	}
	return key, keepKey(files, key)
}

// findKey returns the first key, the zero value if no file exists. A file without a key is passed over if another one
// has one: the host would else change its key.
func findKey(files options.KeyFiles, log *slog.Logger) (wgtypes.Key, error) {
	var errs []error
	for _, path := range files {
		key, err := readKey(path)
		switch {
		case err == nil:
			for _, e := range errs {
				log.Warn("private key not readable, using another copy", "reason", e, "file", path)
			}
			return key, nil
		case !errors.Is(err, fs.ErrNotExist):
			errs = append(errs, err)
		}
	}
	return wgtypes.Key{}, errors.Join(errs...)
}

// keepKey writes the key to all files that do not hold it.
func keepKey(files options.KeyFiles, key wgtypes.Key) error {
	var errs []error
	for _, path := range files {
		if have, err := readKey(path); err != nil || have != key {
			errs = append(errs, writeKey(path, key))
		}
	}
	return errors.Join(errs...)
}

// maxKeyFile bounds a file with a key, in bytes: a key has 44, and blanks and line ends may follow.
const maxKeyFile = 4096

// readKey never shows what the file holds.
func readKey(path string) (wgtypes.Key, error) {
	text, err := subnet.ReadFile(path, maxKeyFile)
	if err != nil {
		return wgtypes.Key{}, fmt.Errorf("read private key: %w", err)
	}
	key, err := wgtypes.ParseKey(strings.TrimSpace(string(text)))
	if err != nil || key == (wgtypes.Key{}) {
		return wgtypes.Key{}, fmt.Errorf("read private key: %s holds no key: want 32 bytes in base64; remove the file to "+
			"get a new key", path)
	}
	return key, nil
}

// writeKey replaces the file whole.
func writeKey(path string, key wgtypes.Key) error {
	err := subnet.WriteFile(path, 0o400, func(w io.Writer) error {
		_, err := io.WriteString(w, key.String()+"\n")
		return err
	})
	if err != nil {
		return fmt.Errorf("write private key %s: %w", path, err)
	}
	return nil
}
