/**
 * Do what must not stop the events if it fails, such as a listener. An error is shown as any uncaught
 * error is.
 */
export function attempt<T>(action: () => T): T | undefined {
  try {
    return action();
  } catch (error) {
    setTimeout(() => {
      throw error;
    });
    return undefined;
  }
}
