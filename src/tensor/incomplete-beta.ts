// The distribution function of the beta distribution, behind Student's t and the noise levels that follow it.

/** The regularized incomplete beta function I_x(a, b), by its continued fraction (DLMF 8.17.22), with Lentz's method. */
export function incompleteBeta(x: number, a: number, b: number): number {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  // The fraction converges fast below the mean; above it the complement is computed.
  if (x > (a + 1) / (a + b + 2)) return 1 - incompleteBeta(1 - x, b, a);
  const logFront = a * Math.log(x) + b * Math.log1p(-x) + logGamma(a + b) - logGamma(a) - logGamma(b) - Math.log(a);
  const tiny = 1e-300;
  let c = 1;
  let d = 1 / notZero(1 - ((a + b) * x) / (a + 1), tiny);
  let fraction = d;
  for (let m = 1; m < 1000; m++) {
    const even = (m * (b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m));
    const odd = (-(a + m) * (a + b + m) * x) / ((a + 2 * m) * (a + 2 * m + 1));
    let change = 1;
    for (const coefficient of [even, odd]) {
      d = 1 / notZero(1 + coefficient * d, tiny);
      c = notZero(1 + coefficient / c, tiny);
      change *= c * d;
    }
    fraction *= change;
    if (Math.abs(change - 1) < 1e-14) break;
  }
  return Math.exp(logFront) * fraction;
}

const notZero = (value: number, least: number): number => (Math.abs(value) < least ? least : value);

/** ln Γ(x) for x > 0: Stirling's series (DLMF 5.11.1) above 10, and Γ(x + 1) = x Γ(x) below. */
function logGamma(x: number): number {
  let shift = 0;
  let y = x;
  while (y < 10) shift += Math.log(y++);
  const inverse = 1 / (y * y);
  const series = (1 / 12 - inverse * (1 / 360 - inverse * (1 / 1260 - inverse / 1680))) / y;
  return (y - 0.5) * Math.log(y) - y + 0.5 * Math.log(2 * Math.PI) + series - shift;
}
