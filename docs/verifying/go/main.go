// An API that checks Gatepost's access tokens itself, with Go's standard library alone: go run .
package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	fresh    = 300 * time.Second // the keys may be kept so long
	coolDown = 30 * time.Second  // between two fetches, whatever `kid` strangers invent
	leeway   = 10 * time.Second
)

var (
	issuer   = setting("GATEPOST_ISSUER", "http://localhost:8000") // JWT_ISSUER there
	audience = setting("GATEPOST_AUDIENCE", issuer)                // JWT_AUDIENCE there
	jwks     = setting("GATEPOST_JWKS", issuer+"/.well-known/jwks.json")

	errRefused  = errors.New("invalid token")
	errKeysAway = errors.New("the keys cannot be fetched")
)

func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

// verifier checks a signature with a public key and the one algorithm that its JWK names.
type verifier struct {
	alg   string
	check func(message, signature []byte) bool
}

// keySet holds Gatepost's public keys by their kid. While no newer ones are to be had, those here serve.
type keySet struct {
	fetching sync.Mutex // held by the one request that fetches
	mutex    sync.RWMutex
	keys     map[string]verifier
	asked    time.Time
	http     http.Client
}

func (set *keySet) get(kid string) (verifier, error) {
	if set.isDue(kid) {
		set.fetching.Lock()
		if set.isDue(kid) {
			set.refresh()
		}
		set.fetching.Unlock()
	}
	set.mutex.RLock()
	defer set.mutex.RUnlock()
	key, known := set.keys[kid]
	if len(set.keys) == 0 {
		return key, errKeysAway
	}
	if !known {
		return key, errRefused
	}
	return key, nil
}

func (set *keySet) isDue(kid string) bool {
	set.mutex.RLock()
	defer set.mutex.RUnlock()
	pause := coolDown
	if _, known := set.keys[kid]; known {
		pause = fresh
	} else if len(set.keys) == 0 {
		pause = time.Second
	}
	return time.Since(set.asked) > pause
}

func (set *keySet) refresh() {
	found, err := set.fetch()
	set.mutex.Lock()
	defer set.mutex.Unlock()
	if err == nil {
		set.keys = found
	} else {
		log.Print("the keys: ", err)
	}
	set.asked = time.Now()
}

func (set *keySet) fetch() (map[string]verifier, error) {
	answer, err := set.http.Get(jwks)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, errors.New(answer.Status)
	}
	var document struct {
		Keys []struct{ Kid, Alg, Kty, Crv, X, Y, N, E string }
	}
	if err := json.NewDecoder(io.LimitReader(answer.Body, 1<<20)).Decode(&document); err != nil {
		return nil, err
	}
	found := map[string]verifier{}
	for _, jwk := range document.Keys {
		x, y, n, e := decoded(jwk.X), decoded(jwk.Y), decoded(jwk.N), decoded(jwk.E)
		switch {
		case jwk.Alg == "ES256" && jwk.Kty == "EC" && jwk.Crv == "P-256":
			public := &ecdsa.PublicKey{Curve: elliptic.P256(), X: number(x), Y: number(y)}
			if !public.Curve.IsOnCurve(public.X, public.Y) {
				continue
			}
			found[jwk.Kid] = verifier{jwk.Alg, func(message, signature []byte) bool {
				digest := sha256.Sum256(message)
				return len(signature) == 64 &&
					ecdsa.Verify(public, digest[:], number(signature[:32]), number(signature[32:]))
			}}
		case jwk.Alg == "RS256" && jwk.Kty == "RSA":
			public := &rsa.PublicKey{N: number(n), E: int(number(e).Int64())}
			found[jwk.Kid] = verifier{jwk.Alg, func(message, signature []byte) bool {
				digest := sha256.Sum256(message)
				return rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], signature) == nil
			}}
		case jwk.Alg == "EdDSA" && jwk.Crv == "Ed25519" && len(x) == ed25519.PublicKeySize:
			found[jwk.Kid] = verifier{jwk.Alg, func(message, signature []byte) bool {
				return ed25519.Verify(x, message, signature)
			}}
		}
	}
	return found, nil
}

func number(raw []byte) *big.Int { return new(big.Int).SetBytes(raw) }

// decoded is base64url without padding; nothing where it is not that.
func decoded(text string) []byte {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil
	}
	return raw
}

// Claims are what an access token says.
type Claims struct {
	Issuer      string   `json:"iss"`
	Audience    string   `json:"aud"`
	Subject     string   `json:"sub"`
	SessionID   string   `json:"sid"`
	ID          string   `json:"jti"`
	Type        string   `json:"type"`
	IssuedAt    int64    `json:"iat"`
	ExpiresAt   int64    `json:"exp"`
	Email       string   `json:"email"`
	Roles       []string `json:"roles"`
	Permissions []string `json:"permissions"`
}

// claimsOf returns the claims of a Gatepost access token, errRefused or errKeysAway.
func (set *keySet) claimsOf(token string) (*Claims, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, errRefused
	}
	var header struct {
		Alg, Kid, Typ string
		Crit          json.RawMessage
	}
	if json.Unmarshal(decoded(parts[0]), &header) != nil || header.Typ != "at+jwt" || header.Crit != nil {
		return nil, errRefused
	}
	key, err := set.get(header.Kid)
	if err != nil {
		return nil, err
	}
	// The key's own algorithm alone: never HS256, never none.
	if header.Alg != key.alg || !key.check([]byte(parts[0]+"."+parts[1]), decoded(parts[2])) {
		return nil, errRefused
	}
	var claims Claims
	if json.Unmarshal(decoded(parts[1]), &claims) != nil {
		return nil, errRefused
	}
	if claims.Issuer != issuer || claims.Audience != audience || claims.Type != "access" ||
		claims.Subject == "" || claims.SessionID == "" || claims.ID == "" ||
		claims.IssuedAt == 0 || !time.Now().Before(time.Unix(claims.ExpiresAt, 0).Add(leeway)) {
		return nil, errRefused
	}
	return &claims, nil
}

// signedIn lets in who has a token, and if a role is named who has that.
func (set *keySet) signedIn(role string, handler func(http.ResponseWriter, *http.Request, *Claims)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		if !strings.EqualFold(scheme, "Bearer") || token == "" {
			w.Header().Set("WWW-Authenticate", "Bearer")
			reply(w, http.StatusUnauthorized, map[string]any{"error": "no token"})
			return
		}
		claims, err := set.claimsOf(strings.TrimLeft(token, " "))
		switch {
		case errors.Is(err, errKeysAway):
			w.Header().Set("Retry-After", "1")
			reply(w, http.StatusServiceUnavailable, map[string]any{"error": err.Error()})
		case err != nil:
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			reply(w, http.StatusUnauthorized, map[string]any{"error": err.Error()})
		case role != "" && !contains(claims.Roles, role):
			reply(w, http.StatusForbidden, map[string]any{"error": fmt.Sprintf("needs the role %s", role)})
		default:
			handler(w, r, claims)
		}
	}
}

func contains(all []string, one string) bool {
	for _, each := range all {
		if each == one {
			return true
		}
	}
	return false
}

func reply(w http.ResponseWriter, status int, body map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func main() {
	set := &keySet{http: http.Client{
		Timeout: 5 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}}
	http.HandleFunc("/orders", set.signedIn("", func(w http.ResponseWriter, _ *http.Request, user *Claims) {
		reply(w, http.StatusOK, map[string]any{"user": user.Subject, "orders": []string{}})
	}))
	http.HandleFunc("/reports", set.signedIn("admin", func(w http.ResponseWriter, _ *http.Request, user *Claims) {
		reply(w, http.StatusOK, map[string]any{"user": user.Subject, "reports": []string{}})
	}))
	server := &http.Server{Addr: "127.0.0.1:" + setting("PORT", "3000"), ReadHeaderTimeout: 10 * time.Second}
	log.Fatal(server.ListenAndServe())
}
