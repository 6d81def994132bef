const KEY = "catenary-demo-token";

/**
 * Who this page is: a demo user, kept in the browser, so that a refresh and a second tab are the same.
 *
 * The server renews a token it knows, and makes a new user where there is none.
 */
export class Identity {
  userId = null;
  /** The user that the server last connected this page as. */
  knownAs = null;

  /** A fresh token. Rejects while the server is away. */
  async token() {
    const response = await fetch("/demo/session", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ token: localStorage.getItem(KEY) ?? undefined }),
    });
    if (!response.ok) throw new Error(`the server answered ${response.status}`);
    const { token, user_id: userId } = await response.json();
    localStorage.setItem(KEY, token);
    this.userId = userId;
    return token;
  }

  /** Ask the server to stop writing to this connection for a while. */
  async slowDown(connectionId, seconds) {
    const response = await fetch("/demo/slow", {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${localStorage.getItem(KEY)}` },
      body: JSON.stringify({ connection_id: connectionId, seconds }),
    });
    if (!response.ok) throw new Error(`the server answered ${response.status}`);
  }
}
